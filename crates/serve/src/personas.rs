//! Personas: names that a request may use, each with what its conversations begin with and how it answers.
//!
//! A persona may have a state file: the state after the system message, the tools and the greeting. It is put into the tree
//! for whoever asks for the persona and is found by its tokens from then on, so beginning with it computes nothing. A
//! persona without one is computed when it is first asked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tangelo_chat::{Persona, beginning};
use tangelo_core::TokenId;
use tangelo_engine::{Owner, state_file};
use tangelo_model::Model;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::model::Text;
use crate::request::{Input, Request};
use crate::server::ServerError;

/// A persona and its file of states.
#[derive(Debug, Clone)]
pub struct Source {
    /// The persona.
    pub persona: Persona,
    /// The state after what its conversations begin with, if it has been built.
    pub state: Option<PathBuf>,
}

/// A persona that can be asked for.
#[derive(Debug)]
pub(crate) struct Installed {
    persona: Persona,
    /// The state file and the tokens that it is of.
    state: Option<(PathBuf, Vec<TokenId>)>,
}

/// The personas of a server.
#[derive(Debug, Default)]
pub struct Personas(BTreeMap<String, Installed>);

impl Personas {
    /// Takes personas and reads over their states.
    ///
    /// # Errors
    /// [`ServerError::Persona`] if two have one name, the model has no template, or a state is damaged or not what the
    /// persona begins with.
    pub fn new(sources: Vec<Source>, text: &Text, model: &Model) -> Result<Personas, ServerError> {
        let mut personas = BTreeMap::new();
        for Source { persona, state } in sources {
            let name = persona.name.clone();
            let wrong = |problem: String| ServerError::Persona { name: name.clone(), problem };
            let installed = install(persona, state, text, model).map_err(wrong)?;
            if personas.insert(name.clone(), installed).is_some() {
                return Err(ServerError::Persona {
                    name,
                    problem: "is there twice: rename one of them".to_owned(),
                });
            }
        }
        Ok(Personas(personas))
    }

    /// The persona of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Installed> {
        self.0.get(name)
    }

    /// All names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Installed {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.persona.name
    }
}

fn install(
    persona: Persona,
    state: Option<PathBuf>,
    text: &Text,
    model: &Model,
) -> Result<Installed, String> {
    let Some(renderer) = &text.renderer else {
        return Err("needs a model with a chat template, and this one has none".to_owned());
    };
    let begun = beginning(renderer, &text.tokenizer, &persona.conversation(), &persona.render_options());
    let tokens = begun.map_err(|error| format!("cannot be rendered: {error}"))?.ids;
    let Some(path) = state else { return Ok(Installed { persona, state: None }) };
    let restored = state_file::restore(&path, model)
        .map_err(|error| format!("has a state that cannot be used: {error}"))?;
    if restored.sequence.tokens() != tokens {
        return Err(format!(
            "begins otherwise than its state {}: make it again with `tangelo persona build`",
            path.display()
        ));
    }
    Ok(Installed { persona, state: Some((path, tokens)) })
}

/// The route.
pub(crate) fn routes() -> Router<App> {
    Router::new().route("/v1/personas", get(list))
}

async fn list(State(app): State<App>, _: Caller) -> Json<Value> {
    let personas = app.personas().0.values().map(|installed| {
        let Persona { name, description, greeting, .. } = &installed.persona;
        json!({"object": "persona", "name": name, "description": description, "greeting": greeting})
    });
    Json(json!({"object": "list", "data": personas.collect::<Vec<_>>()}))
}

impl App {
    /// The persona that a request asks for, in a field of its own or as its model.
    ///
    /// # Errors
    /// There is no such persona, or no such model.
    pub(crate) fn persona_of(&self, request: &Request) -> Result<Option<&Installed>, ApiError> {
        let by_model = self.find_model(request.model.as_deref())?;
        let Some(name) = &request.persona else { return Ok(by_model) };
        let found = self.personas().get(name).ok_or_else(|| {
            let names = self.personas().names().collect::<Vec<_>>().join(", ");
            let known = if names.is_empty() { "no personas".to_owned() } else { format!("these: {names}") };
            let mut error =
                ApiError::not_found(format!("there is no persona {name:?}; this server has {known}"));
            error.param = Some("persona".to_owned());
            error
        });
        found.map(Some)
    }

    /// Makes a request one to the persona that it asks for, and sees to it that the persona's state is at hand.
    pub(crate) async fn in_character(&self, owner: Owner, mut request: Request) -> Result<Request, ApiError> {
        let Some(installed) = self.persona_of(&request)? else { return Ok(request) };
        apply(&installed.persona, &mut request)?;
        if let Some((path, tokens)) = &installed.state {
            // A file that has gone since the start costs time and nothing else: its tokens are computed.
            let _ = self.bring(owner, path, tokens).await;
        }
        Ok(request)
    }
}

/// Fills in what the request leaves open.
fn apply(persona: &Persona, request: &mut Request) -> Result<(), ApiError> {
    request.input = match std::mem::replace(&mut request.input, Input::Tokens(Vec::new())) {
        Input::Chat(conversation) => Input::Chat(persona.begin(conversation)),
        Input::Text(_) | Input::Tokens(_) => {
            let message = format!("the persona {:?} holds conversations: send `messages`", persona.name);
            return Err(ApiError::invalid(Some("persona".to_owned()), message));
        }
    };
    request.sampling = std::mem::take(&mut request.sampling).or(persona.sampling.clone());
    request.thinking.enabled = request.thinking.enabled.or(persona.thinking.enabled);
    request.thinking.budget = request.thinking.budget.or(persona.thinking.budget);
    for (name, value) in &persona.template_kwargs {
        request.template_kwargs.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_wins_over_the_persona() {
        let text = r#"
            name = "duck"
            system = "You are a duck."
            sampling = { temperature = 0.1, top_k = 5, max_tokens = 9, stop = ["quack"] }
            thinking = { enabled = true, budget = 7 }
            template_kwargs = { a = 1, b = 2 }
        "#;
        let persona = Persona::parse(text, |_| Err(String::new())).expect("a persona");
        let mut request = Request::new(Input::Chat(Default::default()));
        request.sampling.temperature = Some(0.9);
        request.thinking.enabled = Some(false);
        request.template_kwargs.insert("a".into(), json!(3));
        apply(&persona, &mut request).expect("a conversation");
        assert_eq!((request.sampling.temperature, request.sampling.top_k), (Some(0.9), Some(5)));
        assert_eq!(
            (request.sampling.max_tokens, request.sampling.stop.as_slice()),
            (Some(9), &["quack".to_owned()][..])
        );
        assert_eq!((request.thinking.enabled, request.thinking.budget), (Some(false), Some(7)));
        assert_eq!(Value::Object(request.template_kwargs), json!({"a": 3, "b": 2}));
        let Input::Chat(conversation) = request.input else { panic!("it stays a conversation") };
        assert_eq!(conversation.messages.len(), 1);
        let mut plain = Request::new(Input::Text("x".into()));
        assert!(apply(&persona, &mut plain).is_err(), "a text has no system message");
    }
}
