//! The files that are looked at.

use std::path::PathBuf;

use yaml_rust2::{Yaml, YamlLoader};

use crate::harness::servers::ROOT;

pub(super) const RULES: &str = "deploy/prometheus/rules";
pub(super) const TESTS: &str = "deploy/prometheus/tests";
pub(super) const DASHBOARDS: &str = "deploy/grafana/dashboards";
pub(super) const SCRAPED: &str = "deploy/prometheus/prometheus.yml";
pub(super) const RUNBOOKS: &str = "docs/OPERATIONS.md";

pub(super) fn text(path: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/{path}"))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Each file of a folder with this ending, with its name.
pub(super) fn all(folder: &str, ending: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(format!("{ROOT}/{folder}")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == ending));
    paths.sort();
    assert!(!paths.is_empty(), "nothing in {folder}");
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let read = |path: &PathBuf| (name(path), std::fs::read_to_string(path).unwrap());
    paths.iter().map(read).collect()
}

pub(super) fn yaml(text: &str) -> Yaml {
    YamlLoader::load_from_str(text).unwrap().remove(0)
}

/// The items of a list; of what is not there, none.
pub(super) fn items(yaml: &Yaml) -> &[Yaml] {
    yaml.as_vec().map_or(&[], Vec::as_slice)
}

/// A text that must be there.
pub(super) fn word(yaml: &Yaml, key: &str) -> String {
    let text = yaml[key].as_str().unwrap_or_default().trim();
    assert!(!text.is_empty(), "no `{key}` in {yaml:?}");
    text.to_owned()
}
