"""A headless Chromium and one page in it, driven through the DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time

import websocket


class Failed(Exception):
    """What was waited for did not happen."""


class Page:
    """One page. Remembers what it asked the network for and what it wrote to the console."""

    def __init__(self, program, width=1100, height=800):
        self.profile = tempfile.mkdtemp(prefix="tangelo-browser-")
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command += ["--remote-allow-origins=*", "--no-first-run", "--disable-background-networking"]
        command += ["--disable-component-update", f"--user-data-dir={self.profile}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.requests, self.complaints, self.dialogs = [], [], []
        self.next_id = 0
        self.socket = None
        self.socket = websocket.create_connection(self._address(), timeout=30)
        targets = self._raw("Target.getTargets")["targetInfos"]
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self._raw("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def _address(self):
        """The browser writes its port and path to its profile as soon as it listens."""
        path = os.path.join(self.profile, "DevToolsActivePort")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if os.path.exists(path):
                lines = open(path, encoding="utf-8").read().split("\n")
                if len(lines) > 1:
                    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            time.sleep(0.05)
        raise Failed("the browser does not listen")

    def _raw(self, method, session=None, **params):
        self.next_id += 1
        message = {"id": self.next_id, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self.socket.send(json.dumps(message))
        wanted = self.next_id
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == wanted:
                if "error" in answer:
                    raise Failed(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _note(self, method, params):
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([one.get("value") for one in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Page.javascriptDialogOpening":
            # Accepted without waiting for the reply, which `_raw` would drop if it came first.
            self.dialogs.append(params["message"])
            self.next_id += 1
            accept = {"id": self.next_id, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            self.socket.send(json.dumps({**accept, "sessionId": self.session}))

    def call(self, method, **params):
        """A command of the protocol, for this page."""
        return self._raw(method, session=self.session, **params)

    def size(self, width, height):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )

    def throttle(self, bytes_per_second):
        """Lets the network be this slow, or as fast as it is with None."""
        speed = bytes_per_second or -1
        self.call(
            "Network.emulateNetworkConditions",
            offline=False, latency=0, downloadThroughput=speed, uploadThroughput=-1,
        )

    def go(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def js(self, expression):
        """The value of an expression, awaited if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise Failed(f"{expression}: {answer['exceptionDetails']['exception']['description']}")
        return answer["result"].get("value")

    def wait(self, condition, seconds=60):
        """Waits until an expression is true and gives its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.js(condition)
            if value:
                return value
            time.sleep(0.02)
        raise Failed(f"{seconds} s have passed without: {condition}")

    def key(self, key, ctrl=False, shift=False, alt=False):
        """Presses and releases a key, named as in KeyboardEvent.key."""
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}
        code = codes.get(key, ord(key[0].upper()))
        modifiers = alt * 1 + ctrl * 2 + shift * 8
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        """Writes into what has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        try:
            if self.socket:
                self._raw("Browser.close")
                self.socket.close()
        except (Failed, OSError, websocket.WebSocketException):
            self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)
