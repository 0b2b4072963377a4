//! What is asked of a card, as ratios: which were met, which were missed, which could not be known.

use serde_json::Value;

/// A number and what is asked of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// What is divided by what.
    pub what: &'static str,
    /// `None` if a part of it was not measured.
    pub value: Option<f64>,
    /// What it should come to.
    pub asked: f64,
    /// Whether more is better.
    pub at_least: bool,
}

impl Ratio {
    /// Whether it comes to what is asked; `None` if it is not known.
    pub fn is_met(&self) -> Option<bool> {
        self.value.map(|value| if self.at_least { value >= self.asked } else { value <= self.asked })
    }

    /// `met`, `missed` or `not known`.
    pub fn verdict(&self) -> &'static str {
        match self.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not known",
        }
    }
}

/// All of them, from a record's facts.
pub fn of(facts: &Value) -> Vec<Ratio> {
    let number = |path: &str| facts.pointer(path).and_then(Value::as_f64).filter(|x| *x > 0.0);
    let quotient = |a: &str, b: &str| Some(number(a)? / number(b)?);
    let beside =
        |run: &str, key: &str| quotient(&format!("/tangelo/{run}/{key}"), &format!("/llama_cpp/{run}/{key}"));
    let at_least = |what, value, asked| Ratio { what, value, asked, at_least: true };
    let at_most = |what, value, asked| Ratio { what, value, asked, at_least: false };
    vec![
        at_least(
            "bytes of decoding over what the device reads in the time",
            number("/tangelo/short/fraction_of_bandwidth"),
            0.6,
        ),
        at_least(
            "decoding at depth over at depth 0",
            quotient("/tangelo/long/decode_per_s", "/tangelo/short/decode_per_s"),
            0.7,
        ),
        at_least("decoding over llama.cpp's", beside("short", "decode_per_s"), 1.5),
        at_least("reading a long prompt over llama.cpp's", beside("long", "prefill_per_s"), 2.0),
        at_most("memory over llama.cpp's, short", beside("short", "memory_bytes"), 1.0),
        at_most("memory over llama.cpp's, long", beside("long", "memory_bytes"), 1.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_measured_is_judged_and_the_rest_is_not_known() {
        let run = |prefill: f64, decode: f64, memory: u64| json!({ "prefill_per_s": prefill, "decode_per_s": decode, "memory_bytes": memory });
        let mut facts = json!({
            "tangelo": { "short": run(1e4, 300.0, 3000), "long": run(2e4, 240.0, 4000) },
            "llama_cpp": { "short": run(1e4, 240.0, 3500), "long": run(1e4, 200.0, 3900) },
        });
        let verdicts = |facts: &Value| of(facts).iter().map(Ratio::verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(&facts), ["not known", "met", "missed", "met", "met", "missed"]);
        facts["tangelo"]["short"]["fraction_of_bandwidth"] = json!(0.61);
        facts["llama_cpp"] = json!({});
        assert_eq!(verdicts(&facts), ["met", "met", "not known", "not known", "not known", "not known"]);
    }
}
