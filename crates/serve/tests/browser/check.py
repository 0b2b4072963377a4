"""Uses the page of a running server in a real browser and says what it saw.

    pip install websocket-client
    tangelo serve fixtures/tiny --port 8080 &
    python crates/serve/tests/browser/check.py http://127.0.0.1:8080 [folder for screenshots]

Every check is about the page, not about what the model says, so a model with random weights will do. Says so and exits
with 0 if there is no Chromium, with 1 if a check fails.
"""

import json
import os
import shutil
import sys
import tempfile
import traceback

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Ulm", "Bonn"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]
MARKDOWN = """# Title
**bold** `code` <img src=x onerror=alert(1)> [bad](javascript:alert(1)) [good](https://example.org)

- one
  1. two

```rust
fn main() {}
```
"""
# A small model is through before a browser has drawn a frame, so where the way there matters its answers come slowly.
SLOW_BYTES_PER_S = 15_000
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Chat:
    """The page, in the terms of somebody who uses it."""

    def __init__(self, page, url, shots):
        self.page, self.url, self.shots = page, url, shots
        self.js, self.wait = page.js, page.wait

    def shoot(self, name):
        self.page.screenshot(os.path.join(self.shots, f"{name}.png"))

    def new(self, **settings):
        """An empty chat in an empty browser, with settings as a user makes them."""
        self.page.throttle(None)
        self.page.go(self.url)
        self.js("localStorage.clear()")
        self.page.go(self.url)
        self.wait("document.getElementById('memory').textContent")
        for name, value in settings.items():
            self.js(f"""{{
                const field = document.querySelector('#settings [name={name}]');
                field.value = {json.dumps(value)};
                field.dispatchEvent(new Event('input', {{ bubbles: true }}));
            }}""")

    def send(self, text, wait=True):
        self.js("document.getElementById('prompt').focus()")
        self.page.type(text)
        self.page.key("Enter")
        if wait:
            self.done()

    def done(self):
        """Waits for the end of an answer that has begun."""
        self.wait("document.getElementById('stop').hidden")

    def press(self, article, title):
        """Presses a button of the message with this place, the last if it is -1."""
        self.js(f"[...document.querySelectorAll('article')].at({article}).querySelector('[title^=\"{title}\"]').click()")

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)})?.textContent ?? null")

    def texts(self):
        """What each message says, its buttons and numbers apart."""
        return self.js("[...document.querySelectorAll('article > .body')].map((body) => body.innerText)")

    def branches(self):
        return self.js("[...document.querySelectorAll('.branches')].map((one) => one.getAttribute('aria-label'))")

    def cached(self):
        """Tokens of the last answer's prompt that the server had, as the page says it."""
        cost = self.js("[...document.querySelectorAll('.cost')].at(-1).textContent")
        return int(cost.split("prompt ")[1].split(", ")[1].split(" cached")[0].replace(",", ""))


@check
def an_answer_arrives_bit_by_bit(chat):
    chat.new(maxTokens="200", thinking="on")
    chat.page.throttle(SLOW_BYTES_PER_S)
    # One look per frame, from inside, since the protocol is slower than a small model.
    chat.js("""
        globalThis.lengths = new Set();
        globalThis.busy = new Set();
        (function look() {
          const article = document.querySelector('article.assistant');
          if (article) {
            lengths.add(article.querySelector('.body').textContent.length);
            busy.add(article.getAttribute('aria-busy'));
          }
          requestAnimationFrame(look);
        })();
    """)
    chat.send("What is a hybrid model?")
    chat.wait("busy.has('true') && busy.has('false')")
    assert chat.js("lengths.size") >= 4, chat.js("[...lengths]")
    question, answer = chat.texts()
    assert question == "What is a hybrid model?" and answer, (question, answer)
    cost = chat.text("article.assistant .cost")
    for part in ("tokens", "/s", "first token after", "prompt", "cached"):
        assert part in cost, cost
    assert "tokens of context" in chat.text("#status")
    assert "weights" in chat.text("#memory") and "states" in chat.text("#memory")
    chat.shoot("light")


@check
def reasoning_is_open_while_it_streams_and_folded_after(chat):
    chat.new(thinking="on", thinkingBudget="40", maxTokens="200")
    chat.page.throttle(SLOW_BYTES_PER_S)
    chat.js("""
        globalThis.seen = [];
        (function look() {
          const reasoning = document.querySelector('.reasoning');
          const hasAnswer = (document.querySelector('.prose')?.textContent ?? '') !== '';
          if (reasoning && !reasoning.hidden) seen.push([hasAnswer, reasoning.open]);
          requestAnimationFrame(look);
        })();
    """)
    chat.send("Think, then answer.", wait=False)
    chat.wait("seen.length > 0")
    chat.shoot("streaming")
    chat.done()
    seen = chat.js("seen")
    assert [False, True] in seen, seen
    assert all(is_open != has_answer for has_answer, is_open in seen), seen
    if chat.text(".prose"):
        chat.js("document.querySelector('.reasoning summary').click()")
        assert chat.js("document.querySelector('.reasoning').open")


@check
def an_edited_question_is_a_branch(chat):
    chat.new(maxTokens="20")
    chat.send("First question")
    chat.send("Second question")
    before = chat.texts()
    chat.press(0, "Edit")
    chat.js("document.activeElement.value = ''")
    chat.page.type("Another question")
    chat.page.key("Enter")
    chat.done()
    assert chat.texts()[0] == "Another question" and len(chat.texts()) == 2, chat.texts()
    assert chat.branches() == ["Branch 2 of 2"], chat.branches()
    chat.shoot("branches")
    chat.js("document.getElementById('prompt').focus()")
    chat.page.key("ArrowLeft", alt=True)
    assert chat.texts() == before, chat.texts()
    chat.page.key("ArrowRight", alt=True)
    assert chat.texts()[0] == "Another question", chat.texts()
    chat.js("document.querySelector('[data-step=\"-1\"]').focus()")
    chat.page.key("Enter")
    assert chat.texts() == before, chat.texts()
    assert chat.js("document.activeElement.dataset.step") == "1", "the focus goes to the only arrow that leads on"
    chat.page.go(chat.url)
    assert chat.texts() == before and chat.branches() == ["Branch 1 of 2"], "the tree outlives the page"


@check
def another_answer_is_a_branch_with_the_prefix_cached(chat):
    chat.new(maxTokens="20", thinking="off")
    chat.send("A question that is asked twice")
    chat.press(-1, "Another answer")
    chat.done()
    assert chat.branches() == ["Branch 2 of 2"], chat.branches()
    assert chat.cached() > 0, "the server has the prompt from the first time"
    chat.press(-1, "Branch before")
    assert chat.branches() == ["Branch 1 of 2"], chat.branches()
    chat.press(-1, "Edit")
    chat.js("document.activeElement.value = ''")
    chat.page.type("My own answer")
    chat.page.key("Enter")
    assert chat.branches() == ["Branch 3 of 3"] and chat.texts()[1] == "My own answer", chat.texts()
    chat.press(-1, "Edit")
    chat.page.key("Escape")
    assert chat.texts()[1] == "My own answer" and not chat.js("document.querySelector('.editor')")


@check
def a_tool_is_called_and_answered_by_hand(chat):
    chat.new(tools=json.dumps(TOOLS), toolChoice="required", thinking="off", maxTokens="600")
    chat.send("What is the weather in Ulm?")
    heading, arguments = chat.text(".call h3"), chat.text(".call pre")
    assert heading == "Calls weather", heading
    assert json.loads(arguments)["city"] in ("Ulm", "Bonn") and "\n" in arguments, arguments
    chat.shoot("tool")
    chat.js("document.querySelectorAll('.results textarea').forEach((field) => (field.value = 'rain'))")
    chat.js("document.querySelector('.results button').click()")
    chat.wait("document.querySelectorAll('article').length === 4")
    chat.done()
    assert chat.js("!document.querySelector('article.assistant .error:not([hidden])')"), chat.texts()
    assert chat.text("article.tool pre") == "rain"


@check
def a_stopped_answer_stays_as_far_as_it_came(chat):
    chat.new(thinking="on")
    chat.page.throttle(SLOW_BYTES_PER_S)
    chat.send("Go on for ever", wait=False)
    chat.wait("document.querySelector('article.assistant .body').textContent !== ''")
    chat.page.key("Escape")
    chat.done()
    assert "stopped" in chat.text("article.assistant .cost"), chat.text("article.assistant .cost")
    length = chat.js("document.querySelector('article.assistant .body').textContent.length")
    chat.page.throttle(None)
    active = "fetch('/v1/memory').then((r) => r.json()).then((memory) => memory.states.active_bytes === 0)"
    chat.wait(active, 10)
    assert chat.js("document.querySelector('article.assistant .body').textContent.length") == length
    chat.send("And after that?")
    assert len(chat.texts()) == 4, chat.texts()


@check
def what_a_model_writes_is_text(chat):
    chat.new()
    file = {
        "format": "tangelo-conversation", "version": 1, "title": "x", "settings": {},
        "messages": [
            {"parent": -1, "isShown": True, "role": "user", "content": "<b>no</b>"},
            {"parent": 0, "isShown": True, "role": "assistant", "content": MARKDOWN},
        ],
    }
    chat.js(f"""{{
        const files = new DataTransfer();
        files.items.add(new File([{json.dumps(json.dumps(file))}], 'chat.json'));
        document.getElementById('file').files = files.files;
        document.getElementById('file').dispatchEvent(new Event('change'));
    }}""")
    chat.wait("document.querySelectorAll('article').length === 2")
    count = "['img', 'script', 'a', 'strong', 'ul ol li', 'h3', 'pre code']"
    found = chat.js(f"{count}.map((kind) => document.querySelectorAll('#messages ' + kind).length)")
    assert found == [0, 0, 1, 1, 1, 1, 1], found
    assert chat.js("document.querySelector('#messages a').rel") == "noopener noreferrer"
    assert chat.texts()[0] == "<b>no</b>"
    chat.js("""
        globalThis.exported = null;
        URL.createObjectURL = (blob) => {
          exported = blob.text();
          return 'data:,';
        };
        URL.revokeObjectURL = () => {};
        HTMLAnchorElement.prototype.click = () => {};
        document.getElementById('export').click();
    """)
    exported = json.loads(chat.js("exported"))
    assert exported["messages"][1]["content"] == MARKDOWN, exported


@check
def a_persona_is_picked_greets_and_is_sent(chat):
    chat.new()
    # Two personas are put into the mouth of a server that may have none, and are taken out of what it is sent.
    chat.js("""{
        const original = fetch;
        globalThis.sent = [];
        globalThis.fetch = (path, options) => {
          const json = (value) => Promise.resolve(new Response(JSON.stringify(value)));
          const models = [{ id: 'tiny', context_length: 64 }, { id: 'cook' }];
          const cook = { name: 'cook', description: 'Knows kitchens', greeting: 'What is in your fridge?' };
          if (path === '/v1/models') return json({ data: models });
          if (path === '/v1/personas') return json({ data: [cook, { name: 'pirate' }] });
          if (!options?.body) return original(path, options);
          const { persona, ...body } = JSON.parse(options.body);
          sent.push(persona ?? null);
          return original(path, { ...options, body: JSON.stringify(body) });
        };
        // The page asks again what the server has when the key changes.
        document.getElementById('key').dispatchEvent(new Event('change'));
    }""")
    chat.wait("!document.getElementById('persona').hidden")
    pick = "{ const list = document.getElementById('persona'); list.value = '%s'; list.dispatchEvent(new Event('change')); }"
    chat.js(pick % "cook")
    assert chat.text("#greeting") == "What is in your fridge?", chat.text("#greeting")
    chat.js("document.querySelector('#settings [name=maxTokens]').value = 8")
    chat.send("Eggs")
    chat.js(pick % "")
    chat.send("Thanks")
    assert chat.js("sent") == ["cook", None], chat.js("sent")


@check
def chats_are_kept_and_listed(chat):
    chat.new(maxTokens="8")
    chat.send("Chat one")
    chat.page.key("O", ctrl=True, shift=True)
    chat.wait("document.querySelectorAll('article').length === 0")
    chat.send("Chat two")
    titles = "[...document.querySelectorAll('.chat')].map((one) => one.textContent)"
    assert chat.js(titles) == ["Chat two", "Chat one"], chat.js(titles)
    chat.js("[...document.querySelectorAll('.chat')].at(-1).click()")
    chat.wait("document.querySelector('article.user .body').textContent === 'Chat one'")
    chat.js("document.querySelector('[title=\"Delete “Chat one”\"]').click()")
    chat.wait(f"{titles}.length === 1")
    assert chat.page.dialogs == ["Delete “Chat one”?"], chat.page.dialogs


@check
def everything_is_reached_by_tab_and_seen(chat):
    chat.new(maxTokens="8")
    chat.send("Hello")
    chat.js("document.getElementById('panel').hidden && document.getElementById('toggle').click()")
    chat.js("document.activeElement.blur()")
    reached = []
    for _ in range(60):
        chat.page.key("Tab")
        reached.append(chat.js("""(() => {
            const { id, name, title, className, tagName } = document.activeElement;
            const style = getComputedStyle(document.activeElement);
            return [id || name || title || className || tagName, style.outlineStyle !== 'none'];
        })()"""))
    names = [name for name, _ in reached]
    for wanted in ("prompt", "send", "new", "toggle", "system", "temperature", "key", "export", "Edit, as a new branch"):
        assert wanted in names, (wanted, names)
    unseen = [name for name, is_seen in reached if not is_seen and name != "BODY"]
    assert not unseen, unseen


@check
def it_fits_small_screens_and_dark_rooms(chat):
    chat.new(maxTokens="60", thinking="off")
    chat.send("A_very_long_word_" * 12)
    light = chat.js("getComputedStyle(document.body).backgroundColor")
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    chat.page.call("Emulation.setEmulatedMedia", features=[dark])
    assert chat.js("getComputedStyle(document.body).backgroundColor") != light
    chat.shoot("dark")
    chat.page.call("Emulation.setEmulatedMedia", features=[])
    chat.page.size(360, 640)
    for name in ("narrow", "narrow-panel"):
        # Whatever is wider than the page and cannot be scrolled by itself widens the page.
        sizes = chat.js("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        assert sizes == [360, 640], (name, sizes)
        inside = chat.js("document.getElementById('transcript').scrollWidth - document.getElementById('transcript').clientWidth")
        assert inside <= 0, (name, inside)
        chat.shoot(name)
        chat.js("document.getElementById('toggle').click()")
    chat.page.size(1100, 800)


def main():
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if len(sys.argv) < 2 or program is None:
        print("skipped: give the URL of a server, and have Chromium on the PATH or in $CHROMIUM")
        return 0
    try:
        from chromium import Page
    except ImportError:
        print("skipped: pip install websocket-client")
        return 0
    url = sys.argv[1].rstrip("/") + "/"
    shots = sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="tangelo-page-")
    os.makedirs(shots, exist_ok=True)
    page, failures = Page(program), 0
    chat = Chat(page, url, shots)
    try:
        for function in CHECKS:
            page.complaints.clear()
            try:
                function(chat)
                page.js("0")
                assert not page.complaints, f"the console says: {page.complaints}"
                print(f"ok    {function.__name__}", flush=True)
            except Exception:
                failures += 1
                print(f"FAIL  {function.__name__}\n{traceback.format_exc()}", flush=True)
        strangers = {address for address in page.requests if not address.startswith((url, "data:", "blob:"))}
        failures += bool(strangers)
        print(f"FAIL  asked elsewhere: {strangers}" if strangers else f"ok    {len(page.requests)} requests, none elsewhere")
    finally:
        page.close()
    print(f"screenshots are in {shots}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
