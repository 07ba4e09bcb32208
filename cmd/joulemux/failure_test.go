package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func TestExitCodes(t *testing.T) {
	codes := map[string]int{
		wire.CodeInvalid: 2, wire.CodePromptTooLarge: 2, wire.CodeModelNotFound: 4, wire.CodeJobNotFound: 4, wire.CodeBackendNotFound: 6,
		wire.CodeNoBackend: 6, wire.CodePowerPolicy: 5, wire.CodeBusy: 7, wire.CodeCancelled: 1,
		wire.CodeDeadlinePassed: 8, wire.CodeBackendFailed: 1, wire.CodeUnsupported: 2, wire.CodeForbidden: 1, wire.CodeStopping: 3, wire.CodeInternal: 1,
		"of_tomorrow": 1,
	}
	for code, want := range codes {
		t.Run(code, func(t *testing.T) {
			e := wire.Error{Text: "so it is", Code: code}
			r := replay(t, answers{
				"POST generate": refuses(http.StatusTeapot, e),
				"POST chat":     says(routedLine + `{"error":{"error":"so it is","code":"` + code + `"}}` + "\n"),
				"GET models":    refuses(http.StatusTeapot, e),
			})
			for _, command := range []string{"generate", "chat", "models"} {
				_, err, got := run(t, r.socket, strings.NewReader("x\n"), command)
				if got != want || !strings.HasSuffix(err, "joulemux: so it is\n") {
					t.Errorf("%s exits with %d, want %d, and says %q", command, got, want, err)
				}
			}
		})
	}
}

func TestRefusalsHaveALineEach(t *testing.T) {
	refused := map[string]string{"ollama-npu": "has no model \"m\"", "ollama-cpu": "not healthy:\nconnection refused"}
	for name, text := range map[string]string{
		"the text does not repeat them": "model not found: \"m\"",
		"the text repeats them":         "model not found: \"m\": ollama-cpu: not healthy:\nconnection refused; ollama-npu: has no model \"m\"",
	} {
		t.Run(name, func(t *testing.T) {
			r := replay(t, answers{"POST generate": refuses(404, wire.Error{Text: text, Code: wire.CodeModelNotFound, Refused: refused})})
			_, err, code := run(t, r.socket, nil, "generate", "x")
			const want = "joulemux: model not found: \"m\"\n" +
				"    ollama-cpu: not healthy: connection refused\n    ollama-npu: has no model \"m\"\n"
			if err != want || code != 4 {
				t.Errorf("it says %q, want %q, and exits with %d", err, want, code)
			}
		})
	}
}

func TestARefusalSaysWhenToTryAgain(t *testing.T) {
	refusal := wire.Error{Text: "power policy: background jobs are refused", Code: wire.CodePowerPolicy, RetryAfterSeconds: 300}
	r := replay(t, answers{"POST generate": refuses(409, refusal)})
	_, err, code := run(t, r.socket, nil, "generate", "--background", "x")
	if want := "joulemux: power policy: background jobs are refused; try again in 300 s\n"; err != want || code != 5 {
		t.Errorf("it says %q, want %q, and exits with %d", err, want, code)
	}
}

func TestJSONTellsFailuresOnce(t *testing.T) {
	const line = `{"error":{"error":"no","code":"power_policy","refused":{"ollama-nvidia":"tier low"}}}` + "\n"
	r := replay(t, answers{
		"POST generate": says(routedLine + line),
		"POST chat": refuses(409, wire.Error{
			Text: "no", Code: wire.CodePowerPolicy, Refused: map[string]string{"ollama-nvidia": "tier low"},
		}),
	})
	for command, want := range map[string]string{"generate": routedLine + line, "chat": line} {
		out, err, code := run(t, r.socket, strings.NewReader("x\n"), command, "--json")
		if out != want || code != 5 || err != "joulemux: no\n    ollama-nvidia: tier low\n" {
			t.Errorf("%s writes %q, says %q and exits with %d", command, out, err, code)
		}
	}
}

func TestJSONTellsOfWrongUse(t *testing.T) {
	for args, says := range map[string]string{
		"generates --json":     "unknown command",
		"status --nope --json": "unknown flag: --nope",
		"--json status now":    "unknown command",
	} {
		out, _, code := run(t, "/nowhere", nil, strings.Fields(args)...)
		var told wire.Event
		if err := json.Unmarshal([]byte(out), &told); err != nil || code != 2 || told.Error == nil || told.Error.Code != wire.CodeInvalid || !strings.Contains(told.Error.Text, says) {
			t.Errorf("%s writes %q and exits with %d", args, out, code)
		}
	}
}

func TestWrongUse(t *testing.T) {
	r := replay(t, answers{}) // Which must not be asked.
	for _, c := range []struct{ args, says string }{
		{"generates", "unknown command"},
		{"generate --modell m x", "unknown flag: --modell"},
		{"generate --max-latency 3 x", "missing unit"},
		{"generate --deadline 20us x", "less than 1ms"},
		{"generate --deadline -2s x", "less than 1ms"},
		{"generate --max-power lots x", "--max-power"},
		{"generate --temperature nan x", "not a number"},
		{"generate --max-tokens 1e3 x", "--max-tokens"},
		{"generate --top-k 3000000000 x", "out of range"},
		{"generate --background=maybe x", "takes no value"},
		{"generate --system \xff x", "not valid UTF-8"},
		{"generate \xff", "the prompt is not valid UTF-8"},
		{"status now", "unknown command"},
		{"chat hello", "unknown command"},
		{"policy saver low", "at most 1 arg"},
		{"hold low", "hold takes a tier"},
		{"hold -- true", "hold takes a tier"},
		{"hold low true", "hold takes a tier"},
		{"hold low --", "hold takes a tier"},
	} {
		_, err, code := run(t, r.socket, strings.NewReader(""), strings.Split(c.args, " ")...)
		if code != 2 || !strings.Contains(err, c.says) || strings.Count(err, "\n") != 1 || !strings.HasPrefix(err, "joulemux: ") {
			t.Errorf("joulemux %q exits with %d and says %q", c.args, code, err)
		}
	}
	if asked := r.requests(); len(asked) > 0 {
		t.Errorf("the daemon was asked %q", asked)
	}
}

func TestDaemonThatIsNotThere(t *testing.T) {
	const want = "joulemux: no daemon answers on /nowhere/api.sock (connect: no such file or directory); " +
		"start it with: systemctl --user start joulemuxd\n"
	for _, command := range []string{
		"generate x", "chat", "status", "status --follow", "backends", "models", "policy", "policy auto", "hold low -- true",
	} {
		_, err, code := run(t, "/nowhere/api.sock", strings.NewReader("x\n"), strings.Fields(command)...)
		if code != 3 || err != want {
			t.Errorf("%s exits with %d and says %q", command, code, err)
		}
	}
}

func TestTheFlagNamesAnotherSocket(t *testing.T) {
	r := replay(t, answers{"GET policy": says(`{"policy":"auto"}`)})
	if out, err, code := run(t, "/nowhere", nil, "policy", "--socket", r.socket); out != "auto\n" || code != 0 {
		t.Errorf("writes %q, says %q, exits with %d", out, err, code)
	}
}

func TestStrangeServers(t *testing.T) {
	hangUp := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for _, c := range []struct {
		name string
		h    http.HandlerFunc
		says string
		code int
	}{
		{"one that hangs up", hangUp, "hung up: EOF", 3},
		{"one whose answer breaks off", func(w http.ResponseWriter, _ *http.Request) { write(w, "{"); panic(http.ErrAbortHandler) }, "hung up: ", 3},
		{"one whose answer is no JSON", says("<html>"), "not what it should be", 1},
		{"one whose refusal is no JSON", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) }, "/joulemux/v1/models: 502 Bad Gateway", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := replay(t, answers{"GET models": c.h})
			if _, err, code := run(t, r.socket, nil, "models"); code != c.code || !strings.Contains(err, c.says) {
				t.Errorf("exits with %d and says %q", code, err)
			}
		})
	}
}
