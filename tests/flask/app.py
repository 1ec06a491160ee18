"""The lab's web application: slow from the database, at once from the cache, for 60 seconds."""
import os
import time

import redis
from flask import Flask, jsonify

TTL = int(os.environ.get("TTL", "60"))
SLOW = float(os.environ.get("SLOW", "2"))

app = Flask(__name__)
cache = redis.Redis(
    host=os.environ.get("REDIS_HOST", "127.0.0.1"),
    port=int(os.environ.get("REDIS_PORT", "6379")),
    password=os.environ.get("REDIS_PASSWORD") or None,
    decode_responses=True,
)


def read_database(key):
    time.sleep(SLOW)
    return key.upper()


@app.route("/data/<key>")
def data(key):
    value = cache.get(key)
    if value is not None:
        return jsonify(key=key, value=value, source="cache")
    value = read_database(key)
    cache.setex(key, TTL, value)
    return jsonify(key=key, value=value, source="database (slow)")


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "5000")))
