//! `POST /v1/embeddings`: the mean over all tokens of the last hidden state, after the final norm.
//!
//! The model is no embedding model; its vectors are what they are and are not scaled to length one.

use axum::Json;
use axum::extract::State;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::completions::inputs;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::wire::extract::Body;
use crate::wire::fields::Fields;

/// Most texts in one request.
const INPUTS_MAX: usize = 256;

/// Embeds texts.
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    let fields = Fields::of_body(&body);
    if fields.get("dimensions").is_some() {
        return Err(fields.refused("dimensions", "cannot be chosen; the vectors have the model's width"));
    }
    let is_base64 = fields.choice("encoding_format", &[("float", false), ("base64", true)])?.unwrap_or(false);
    let inputs = inputs(&fields, "input", INPUTS_MAX)?;
    let model = app.model_for(fields.text("model")?)?;
    let embedded = try_join_all(inputs.into_iter().map(|input| app.embed(&caller, input))).await?;
    let tokens: usize = embedded.iter().map(|embedding| embedding.tokens).sum();
    let data = embedded.iter().enumerate().map(|(index, embedding)| {
        let vector = if is_base64 { base64(&embedding.vector).into() } else { json!(embedding.vector) };
        json!({"object": "embedding", "index": index, "embedding": vector})
    });
    Ok(Json(json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "tangelo": {"pooling": "mean of the last hidden state over all tokens"},
    })))
}

/// Little-endian f32 in base64 (RFC 4648, with padding).
fn base64(vector: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for group in bytes.chunks(3) {
        let byte = |index| u32::from(group.get(index).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = usize::try_from(word >> (18 - 6 * place) & 63).ok();
            let letter = digit.and_then(|digit| ALPHABET.get(digit)).copied().unwrap_or(b'=');
            text.push(char::from(if place > group.len() { b'=' } else { letter }));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_others() {
        // python: base64.b64encode(struct.pack("<2f", 1.0, -2.5))
        assert_eq!(base64(&[]), "");
        assert_eq!(base64(&[1.0]), "AACAPw==");
        assert_eq!(base64(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(base64(&[1.0, -2.5, 0.1]), "AACAPwAAIMDNzMw9");
    }
}
