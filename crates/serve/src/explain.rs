//! `POST /v1/cache/explain`: what of a prompt is known already, and where and why it parts from what is known.
//!
//! Takes the body of a chat completion, or `prompt` as in a plain completion; computes nothing and changes nothing.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tangelo_chat::Origin;
use tangelo_core::TokenId;
use tangelo_engine::Explanation;
use tangelo_formats::tokenizer::Tokenizer;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::prepare::Prompt;
use crate::states;
use crate::wire::extract::Body;
use crate::wire::fields::Fields;

/// Tokens that are shown before and after the place where a prompt parts.
const TOKENS_SHOWN: usize = 16;

/// The one route.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/cache/explain", post(explain))
}

async fn explain(State(app): State<App>, caller: Caller, Body(body): Body) -> Result<Json<Value>, ApiError> {
    let request = states::prompt_of(&Fields::of_body(&body))?;
    let Prompt { ids: tokens, turn, .. } = app.prompt(&caller, request, true).await?;
    let looked_for = tokens.clone();
    let found =
        app.worker().call(move |scheduler| scheduler.tree().explain(caller.owner, &looked_for)).await?;
    let origin = match turn {
        Some(turn) => app.origin(turn, found.matched).await?,
        None => None,
    };
    Ok(Json(report(app.tokenizer(), &tokens, origin, found)))
}

fn report(tokenizer: &Tokenizer, tokens: &[TokenId], origin: Option<Origin>, found: Explanation) -> Value {
    let Explanation { restored, matched, next_stored, is_on_disk } = found;
    let difference = (matched < tokens.len()).then(|| {
        let before = tokens.get(matched.saturating_sub(TOKENS_SHOWN)..matched).unwrap_or_default();
        let after = tokens.get(matched..).unwrap_or_default();
        let shown = after.get(..TOKENS_SHOWN).unwrap_or(after);
        json!({
            "token": matched,
            "before": tokenizer.decode(before, false),
            "prompt": tokenizer.decode(shown, false),
            "stored": next_stored.map(|token| tokenizer.decode(&[token], false)),
            "field": origin.map(|origin| origin.to_string()),
        })
    });
    json!({
        "prompt_tokens": tokens.len(),
        "cached_tokens": restored,
        "matched_tokens": matched,
        "replayed_tokens": matched.saturating_sub(restored),
        "is_on_disk": is_on_disk,
        "difference": difference,
        "reason": reason(tokens.len(), found),
    })
}

/// Why not more is known, in a sentence.
fn reason(len: usize, found: Explanation) -> String {
    let Explanation { restored, matched, next_stored, .. } = found;
    let replayed = match matched.saturating_sub(restored) {
        0 => String::new(),
        tokens => format!(
            "; the {tokens} tokens before that are known too, but are computed again because no state is kept nearer"
        ),
    };
    match next_stored {
        _ if matched == 0 => "nothing that is kept begins like this prompt".to_owned(),
        _ if restored == len => "the state after the whole prompt is kept".to_owned(),
        _ if matched >= len.saturating_sub(1) => format!("all of the prompt has been seen{replayed}"),
        Some(_) => format!("what is kept goes on differently after {matched} tokens{replayed}"),
        None => format!("the prompt goes on where what is kept ends, after {matched} tokens{replayed}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_part_has_its_reason() {
        let found = |restored, matched, next_stored| Explanation {
            restored,
            matched,
            next_stored,
            is_on_disk: false,
        };
        for (explanation, expected) in [
            (found(0, 0, Some(3)), "nothing that is kept"),
            (found(10, 10, None), "the state after the whole prompt"),
            (found(4, 10, None), "all of the prompt has been seen; the 6 tokens"),
            (found(4, 4, Some(9)), "differently after 4 tokens"),
            (found(2, 4, None), "where what is kept ends, after 4 tokens; the 2 tokens"),
        ] {
            let reason = reason(10, explanation);
            assert!(reason.contains(expected), "{explanation:?}: {reason}");
        }
    }
}
