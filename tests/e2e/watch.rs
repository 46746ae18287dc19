//! Being told: the rules, dashboards and runbooks as files, and all of their queries against a real
//! Prometheus that scrapes a pipeline in trouble. `scripts/test-watch` runs the last one, for which
//! it has a broker with metrics; the others are tests like any.

mod dashboards;
mod files;
mod prometheus;
mod rules;
mod runbooks;
mod running;
mod site;
