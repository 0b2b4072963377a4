//! An agent's conversation over many turns: what is computed again is what is new, whatever the template makes of the past
//! and whatever the client does with it.

use serde_json::{Value, json};

use crate::server::{Plan, Server};

/// Tokens that may be computed again beyond the new ones, for want of a state at the very place.
const SLACK: u64 = 512;

/// Words by the number, always the same for one seed.
fn words(seed: &mut u64, count: usize) -> String {
    let word = |seed: &mut u64| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let n = (*seed >> 33) % 400;
        format!("{}{n}", char::from(b'a' + (n % 26) as u8))
    };
    (0..count).map(|_| word(seed)).collect::<Vec<_>>().join(" ")
}

fn tools(seed: &mut u64) -> Value {
    let tool = |i: usize, seed: &mut u64| {
        json!({"type": "function", "function": {
            "name": format!("tool_{i}"),
            "description": words(seed, 12),
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "string", "description": words(seed, 6)}, "b": {"type": "integer"}},
                "required": ["a"],
            },
        }})
    };
    (0..12).map(|i| tool(i, seed)).collect()
}

/// A conversation as its client holds it.
#[derive(Clone)]
struct Talk<'s> {
    server: &'s Server,
    tools: Value,
    messages: Vec<Value>,
}

/// Tokens of a prompt, and how many of them were found.
#[derive(Clone, Copy, Debug)]
struct Usage {
    prompt: u64,
    cached: u64,
}

impl Usage {
    fn computed(self) -> u64 {
        self.prompt - self.cached
    }

    fn fraction(self) -> f64 {
        self.cached as f64 / self.prompt as f64
    }
}

impl Talk<'_> {
    /// Instructions and tools of 6,000 tokens at least.
    fn begin<'s>(server: &'s Server, seed: &mut u64) -> Talk<'s> {
        let tools = tools(seed);
        let mut count = 400;
        loop {
            let system = json!({"role": "system", "content": words(&mut seed.clone(), count)});
            let talk = Talk { server, tools: tools.clone(), messages: vec![system] };
            let body = json!({"model": "tiny", "messages": talk.messages, "tools": talk.tools});
            let explained = server.post("/v1/cache/explain", &body).json(200);
            if explained["prompt_tokens"].as_u64().expect("a number") >= 6000 {
                *seed += 1;
                return talk;
            }
            count += 100;
        }
    }

    /// Asks for an answer with reasoning; the client keeps what was said, without the reasoning.
    fn answer(&mut self, seed: u64) -> Usage {
        let body = json!({
            "model": "tiny",
            "messages": self.messages,
            "tools": self.tools,
            "max_tokens": 40,
            "reasoning": {"max_tokens": 15},
            "seed": seed,
        });
        let answer = self.server.post("/v1/chat/completions", &body).json(200);
        let count = |value: &Value| value.as_u64().expect("a number");
        let usage = &answer["usage"];
        let message = &answer["choices"][0]["message"];
        assert!(count(&usage["completion_tokens_details"]["reasoning_tokens"]) > 0, "it thinks");
        self.messages.push(json!({"role": "assistant", "content": message["content"]}));
        Usage {
            prompt: count(&usage["prompt_tokens"]),
            cached: count(&usage["prompt_tokens_details"]["cached_tokens"]),
        }
    }

    fn say(&mut self, text: String) {
        self.messages.push(json!({"role": "user", "content": text}));
    }
}

#[test]
fn ten_turns_compute_what_is_new_and_what_an_edit_leaves_is_found() {
    let server = Server::start(Plan { context: 16_384, ..Plan::default() });
    let mut seed = 1;
    let mut talk = Talk::begin(&server, &mut seed);
    let mut before = 0;
    for turn in 1..=10 {
        talk.say(words(&mut seed, 30));
        let usage = talk.answer(turn);
        let new = usage.prompt - before;
        assert!(turn == 1 || usage.computed() <= new + SLACK, "turn {turn}: {usage:?}, {new} new");
        before = usage.prompt;
    }

    // An earlier message is edited: the conversation goes on from there.
    for at in [5, 9, 13] {
        let mut edited = talk.clone();
        edited.messages.truncate(at);
        edited.say(words(&mut seed, 30));
        let usage = edited.answer(1);
        assert!(usage.fraction() >= 0.9, "message {at} edited: {usage:?}");
    }

    // The last answer is made again.
    let mut again = talk.clone();
    again.messages.pop();
    let usage = again.answer(99);
    assert!(usage.fraction() >= 0.9, "made again: {usage:?}");

    // Two conversations take turns.
    let mut other = talk.clone();
    other.messages.truncate(1);
    other.say(words(&mut seed, 40));
    other.answer(5);
    for turn in 0..4 {
        for (which, talk) in [&mut talk, &mut other].into_iter().enumerate() {
            talk.say(words(&mut seed, 20));
            let usage = talk.answer(turn);
            assert!(usage.fraction() >= 0.9, "conversation {which}, turn {turn}: {usage:?}");
        }
    }
}
