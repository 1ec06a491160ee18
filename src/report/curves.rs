//! What a proof of a web app measured, as pictures for its page. Pure.

use std::time::Duration;

use super::html::Picture;
use super::svg::{self, Bar, Tone};
use crate::verify::Curves;

/// The pictures there is something to see in.
pub fn pictures(curves: &Curves) -> Vec<Picture> {
    [times(curves), countdown(curves), herd(curves)].into_iter().flatten().collect()
}

fn bar(label: &str, note: &str, time: Option<Duration>, tone: Tone) -> Option<Bar> {
    time.map(|time| Bar { label: label.into(), note: note.into(), time, tone })
}

/// Cold against warm; a further cold answer is the one after the key had run out.
fn times(curves: &Curves) -> Option<Picture> {
    let bars: Vec<Bar> = [
        bar("cold", "from the database", curves.cold.first().copied(), Tone::Cold),
        bar("warm", "from the cache", curves.warm.iter().min().copied(), Tone::Warm),
        bar("cold again", "after its TTL", curves.cold.get(1).copied(), Tone::Cold),
    ]
    .into_iter()
    .flatten()
    .collect();
    let title = "Cold against warm";
    (!bars.is_empty()).then(|| Picture { title: title.into(), svg: svg::bars(title, &bars) })
}

fn countdown(curves: &Curves) -> Option<Picture> {
    let title = "The key's time in the cache";
    let svg = || svg::countdown(title, curves.lifetime, &curves.left);
    (!curves.left.is_empty()).then(|| Picture { title: title.into(), svg: svg() })
}

fn herd(curves: &Curves) -> Option<Picture> {
    let mut times = curves.herd.clone();
    times.sort();
    let title = format!("{} requests at once for one cold key", times.len());
    let bars: Vec<Bar> = [
        bar("fastest", "", times.first().copied(), Tone::Cold),
        bar("median", "", times.get(times.len() / 2).copied(), Tone::Cold),
        bar("slowest", "", times.last().copied(), Tone::Cold),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!bars.is_empty()).then(|| Picture { svg: svg::bars(&title, &bars), title })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_picture_of_what_was_measured_and_of_nothing_else() {
        let ms = Duration::from_millis;
        assert!(pictures(&Curves::default()).is_empty());
        let mut curves = Curves { cold: vec![ms(200)], warm: vec![ms(2), ms(1)], ..Curves::default() };
        assert_eq!(pictures(&curves).len(), 1);
        curves.lifetime = ms(1000);
        curves.left = vec![(ms(0), Some(ms(1000))), (ms(1001), None)];
        curves.herd = vec![ms(202), ms(201), ms(210)];
        let all = pictures(&curves);
        assert_eq!(
            all.iter().map(|picture| picture.title.as_str()).collect::<Vec<_>>(),
            ["Cold against warm", "The key's time in the cache", "3 requests at once for one cold key"]
        );
    }
}
