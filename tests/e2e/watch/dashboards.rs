//! The dashboards, and that each panel says what it shows.

use std::collections::BTreeSet;

use serde_json::Value;

use super::files::{DASHBOARDS, all};

pub(super) struct Panel {
    /// `delivery.json: Answers`
    pub(super) name: String,
    json: Value,
}

impl Panel {
    /// Its queries, as Grafana would send them: over this window, and for everything.
    pub(super) fn queries(&self, window: &str) -> Vec<String> {
        let targets = self.json["targets"].as_array().unwrap().iter();
        targets
            .map(|target| fill_in(target["expr"].as_str().unwrap(), window))
            .collect()
    }
}

/// Variables replaced by what they stand for.
fn fill_in(expr: &str, window: &str) -> String {
    let query = expr
        .replace("$__rate_interval", window)
        .replace("$namespace", ".*");
    assert!(!query.contains('$'), "an unknown variable in {query}");
    query
}

fn dashboards() -> Vec<(String, Value)> {
    let files = all(DASHBOARDS, "json").into_iter();
    files
        .map(|(file, text)| (file, serde_json::from_str(&text).unwrap()))
        .collect()
}

pub(super) fn panels() -> Vec<Panel> {
    let panels = |(file, dashboard): (String, Value)| {
        let panels = dashboard["panels"].as_array().unwrap().clone();
        let named = move |json: Value| Panel {
            name: format!("{file}: {}", json["title"].as_str().unwrap()),
            json,
        };
        panels.into_iter().map(named)
    };
    dashboards().into_iter().flat_map(panels).collect()
}

/// What annotations ask for: nothing may be there, but it must be a query.
pub(super) fn annotations() -> Vec<String> {
    let dashboards = dashboards().into_iter();
    dashboards
        .flat_map(|(_, dashboard)| dashboard["annotations"]["list"].as_array().unwrap().clone())
        .map(|annotation| fill_in(annotation["expr"].as_str().unwrap(), "1m"))
        .collect()
}

#[test]
fn every_panel_has_a_unit_a_description_and_a_legend() {
    let mut names = BTreeSet::new();
    for Panel { name, json } in panels() {
        let kind = json["type"].as_str().unwrap();
        let unit = match kind {
            "heatmap" => &json["options"]["yAxis"]["unit"],
            _ => &json["fieldConfig"]["defaults"]["unit"],
        };
        assert!(
            unit.as_str().is_some_and(|unit| !unit.is_empty()),
            "{name}: no unit"
        );
        let description = json["description"].as_str().unwrap_or_default();
        assert!(description.ends_with('.'), "{name}: no description");
        match kind {
            "timeseries" => assert_eq!(json["options"]["legend"]["showLegend"], true, "{name}"),
            "heatmap" => assert_eq!(json["options"]["legend"]["show"], true, "{name}"),
            // A single number, with its name above it.
            "stat" => {}
            other => panic!("{name}: a {other} is not known here"),
        }
        assert_eq!(json["datasource"]["uid"], "prometheus", "{name}");
        for target in json["targets"].as_array().unwrap() {
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            assert!(!legend.is_empty(), "{name}: a query without a legend");
            assert_eq!(target["datasource"]["uid"], "prometheus", "{name}");
        }
        assert!(names.insert(name.clone()), "{name} is there twice");
    }
}

#[test]
fn no_two_dashboards_or_panels_share_an_id_or_a_place() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(uids.insert(dashboard["uid"].to_string()), "{file}");
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].to_string()), "{file}: {panel}");
            let place = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            let [x, y, width, height] = place;
            assert!(x + width <= 24, "{file}: {place:?}");
            for column in x..x + width {
                for row in y..y + height {
                    assert!(taken.insert((column, row)), "{file}: {place:?}");
                }
            }
        }
    }
}
