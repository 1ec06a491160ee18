//! The planner over cases that are data: topology and facts in, the expected plan out.
