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

    def bring(self, file):
        """Imports a conversation."""
        self.js(f"""{{
            const files = new DataTransfer();
            files.items.add(new File([{json.dumps(json.dumps(file))}], 'chat.json'));
            document.getElementById('file').files = files.files;
            document.getElementById('file').dispatchEvent(new Event('change'));
        }}""")
        self.wait(f"document.querySelectorAll('article').length === {len(file['messages'])}")

    def give_personas(self, personas):
        """Puts personas into the mouth of a server that may have none, and takes them out of what it is sent."""
        self.js(f"""{{
            const original = fetch;
            globalThis.sent = [];
            globalThis.fetch = (path, options) => {{
              const json = (value) => Promise.resolve(new Response(JSON.stringify(value)));
              const models = [{{ id: 'tiny', context_length: 64 }}, {{ id: 'tiny:one' }}];
              if (path === '/v1/models') return json({{ data: models }});
              if (path === '/v1/personas') return json({{ data: {json.dumps(personas)} }});
              if (!options?.body) return original(path, options);
              const {{ persona, ...body }} = JSON.parse(options.body);
              sent.push(persona ?? null);
              return original(path, {{ ...options, body: JSON.stringify(body) }});
            }};
            // The page asks again what the server has when the key changes.
            document.getElementById('key').dispatchEvent(new Event('change'));
        }}""")
        self.wait("!document.getElementById('persona').hidden")

    def pick(self, persona):
        self.js(f"""{{
            const list = document.getElementById('persona');
            list.value = {json.dumps(persona)};
            list.dispatchEvent(new Event('change'));
        }}""")

    def greeting(self):
        """What is seen of the greeting."""
        return self.js("""(() => {
            const greeting = document.getElementById('greeting');
            return greeting.checkVisibility() && greeting.querySelector('.prose').innerText;
        })()""")

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
    chat.bring(file)
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
    chat.new(maxTokens="8")
    cook = {"name": "cook", "description": "Knows kitchens", "greeting": "What is in **your** fridge?"}
    chat.give_personas([cook, {"name": "pirate"}])
    asked = "document.getElementById('question').checkVisibility()"
    assert chat.js(asked) and not chat.greeting()
    chat.pick("cook")
    assert chat.greeting() == "What is in your fridge?" and not chat.js(asked), chat.greeting()
    chat.send("Eggs")
    assert chat.greeting() == "What is in your fridge?", "it stays above the first message"
    assert chat.js("document.getElementById('greeting').getBoundingClientRect().bottom"
                   " <= document.querySelector('article').getBoundingClientRect().top")
    chat.pick("")
    assert not chat.greeting() and not chat.js(asked)
    chat.send("Thanks")
    assert chat.js("sent") == ["cook", None], chat.js("sent")


@check
def a_chat_whose_persona_has_gone_is_answered_without(chat):
    file = {
        "format": "tangelo-conversation", "version": 1, "title": "x",
        "settings": {"persona": "gone", "maxTokens": 8},
        "messages": [{"parent": -1, "isShown": True, "role": "user", "content": "Hello"}],
    }
    for personas in ([], [{"name": "cook"}]):
        chat.new()
        if personas:
            chat.give_personas(personas)
        chat.bring(file)
        chat.press(-1, "Ask for an answer")
        chat.wait("document.querySelectorAll('article').length === 2")
        chat.done()
        assert not chat.js("document.querySelector('article.assistant .error').checkVisibility()"), chat.texts()
        assert chat.js("document.getElementById('persona').value") == ""
        # It has been kept with its persona until now, as it was when it was last open on another server.
        chat.js("""{
            const name = Object.keys(localStorage).find((name) => name.startsWith('tangelo.chat.'));
            const kept = JSON.parse(localStorage.getItem(name));
            kept.settings.persona = 'gone';
            localStorage.setItem(name, JSON.stringify(kept));
        }""")
        chat.page.go(chat.url)
        chat.wait("document.getElementById('memory').textContent")
        chat.send("And now?")
        assert len(chat.texts()) == 4 and not chat.js(
            "[...document.querySelectorAll('article .error')].some((error) => error.checkVisibility())"
        ), chat.texts()
    # One that goes while the page is open costs one answer: the page asks again what there is.
    chat.new(maxTokens="8")
    chat.give_personas([{"name": "cook"}])
    chat.pick("cook")
    chat.js("""{
        const withCook = fetch;
        globalThis.fetch = (path, options) => {
          const json = (value, status) => Promise.resolve(new Response(JSON.stringify(value), { status }));
          if (path === '/v1/personas') return json({ data: [] }, 200);
          const isRefused = options?.body && JSON.parse(options.body).persona;
          return isRefused ? json({ error: { message: 'there is no persona' } }, 404) : withCook(path, options);
        };
    }""")
    chat.send("Hello")
    assert "there is no persona" in chat.texts()[-1], chat.texts()
    chat.wait("document.getElementById('persona').hidden")
    chat.press(-1, "Another answer")
    chat.wait("!document.querySelector('article.assistant .error').checkVisibility()")
    chat.done()
    assert len(chat.texts()) == 2, chat.texts()


@check
def a_long_greeting_is_read_from_its_beginning(chat):
    chat.new(maxTokens="8")
    paragraphs = [f"Paragraph {number} of a greeting, _which_ goes on for a while." for number in range(1, 31)]
    word = "A_very_long_word_" * 12
    chat.give_personas([{"name": "talker", "greeting": "\n\n".join(["# Welcome", word, *paragraphs])}])
    for name, width, height in (("greeting", 1100, 800), ("greeting-narrow", 360, 640)):
        chat.page.size(width, height)
        chat.pick("talker")
        chat.js("document.getElementById('new').click()")
        chat.wait("document.getElementById('greeting').checkVisibility()")
        box = chat.js("""(() => {
            const scroller = document.getElementById('transcript');
            const first = document.querySelector('#greeting .prose').firstChild;
            const { top, left, right } = first.getBoundingClientRect();
            const inside = scroller.getBoundingClientRect();
            const style = getComputedStyle(document.querySelector('#greeting p'));
            return {
                atTop: scroller.scrollTop === 0 && top >= inside.top && top < inside.top + 100,
                isInside: left >= inside.left && right <= inside.right,
                isWide: scroller.scrollWidth > scroller.clientWidth,
                scrolls: scroller.scrollHeight > scroller.clientHeight,
                width: right - left,
                weight: style.fontWeight,
                size: style.fontSize,
            };
        })()""")
        assert box["atTop"] and box["isInside"] and box["scrolls"] and not box["isWide"] and box["width"] <= 46 * 16, box
        assert (box["weight"], box["size"]) == ("400", "16px"), box
        chat.shoot(name)
    chat.send("Hello")
    chat.shoot("greeting-begun")
    chat.page.size(1100, 800)


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
