//! `GET /openapi.json`: what this server takes and gives, in OpenAPI 3.1.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;

/// The document, but for what depends on the model.
const DOCUMENT: &str = include_str!("../../openapi.json");

/// The one route.
pub fn routes() -> Router<App> {
    Router::new().route("/openapi.json", get(retrieve))
}

async fn retrieve(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    document(app.model().vocabulary).map(Json)
}

/// The document for a model with this many tokens.
fn document(vocabulary: usize) -> Result<Value, ApiError> {
    let broken = |error: serde_json::Error| ApiError::internal(format!("openapi.json is broken: {error}"));
    let mut document: Value = serde_json::from_str(DOCUMENT).map_err(broken)?;
    if let Some(maximum) = document.pointer_mut("/components/schemas/TokenId/maximum") {
        *maximum = vocabulary.saturating_sub(1).into();
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_part_is_used() {
        let document = document(100).expect("valid JSON");
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').expect("a reference into the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for kind in ["schemas", "responses"] {
            for name in document["components"][kind].as_object().expect("parts").keys() {
                assert!(found.contains(format!("#/components/{kind}/{name}").as_str()), "{kind}/{name}");
            }
        }
    }

    #[test]
    fn tokens_end_where_the_models_do() {
        let document = document(100).expect("valid JSON");
        assert_eq!(document["components"]["schemas"]["TokenId"]["maximum"], 99);
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let document = document(1).expect("valid JSON");
        let paths = document["paths"].as_object().expect("paths");
        let operations = paths.values().flat_map(|path| path.as_object().expect("operations").values());
        let names: Vec<&str> = operations.map(|one| one["operationId"].as_str().expect("a name")).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }
}
