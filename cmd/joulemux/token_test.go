package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/token"
)

func TestTokensAreMadeListedAndRevoked(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	do := func(want int, args ...string) (out, complaint string) {
		t.Helper()
		cmd := command("/nowhere", append([]string{"token"}, args...)...)
		cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+home)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		text, _ := cmd.Output()
		if cmd.ProcessState.ExitCode() != want {
			t.Errorf("%v: exit code %d, %s%s", args, cmd.ProcessState.ExitCode(), text, &stderr)
		}
		return string(text), stderr.String()
	}
	if out, _ := do(0, "list"); out != "no tokens\n" {
		t.Errorf("at first: %s", out)
	}
	out, told := do(0, "create", "phone", "--expires", "30d")
	secret, rest, _ := strings.Cut(out, "\n")
	if !token.IsOurs(secret) || rest != "" || !strings.Contains(told, "shown only now") {
		t.Errorf("made: %q, %q", out, told)
	}
	file := token.Open(filepath.Join(home, "joulemux", "tokens"))
	made, found, err := file.Find(secret)
	if err != nil || !found || made.Name != "phone" || !made.May(token.Generate) || made.May(token.Admin) ||
		made.Expired(time.Now().Add(719*time.Hour)) || !made.Expired(time.Now().Add(721*time.Hour)) {
		t.Errorf("got %+v, %v, %v", made, found, err)
	}
	out, _ = do(0, "create", "prometheus", "--right", "metrics", "--right", "control", "--json")
	var record tokenRecord
	if err := json.Unmarshal([]byte(out), &record); err != nil || record.Name != "prometheus" || strings.Join(record.Rights, " ") != "metrics control" || !record.Expires.IsZero() {
		t.Errorf("in JSON: %v, %s", err, out)
	}
	if _, found, _ := file.Find(record.Token); !found {
		t.Errorf("there is no token %q", record.Token)
	}
	for _, want := range []string{"NAME ", "phone ", "prometheus ", "metrics,control", "never"} {
		if out, _ := do(0, "list"); !strings.Contains(out, want) || strings.Contains(out, secret) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if out, _ := do(0, "list", "--json"); strings.Contains(out, "sha256") || !strings.Contains(out, `"name":"phone"`) {
		t.Errorf("in JSON: %s", out)
	}
	do(0, "revoke", "phone")
	if _, found, _ := file.Find(secret); found {
		t.Error("a token that was revoked is there")
	}
	for _, wrong := range []struct{ args, says string }{
		{"revoke phone", `there is no token "phone"`},
		{"create prometheus", `there is a token "prometheus" already`},
		{"create a/b", "has other characters"},
		{"create a --right fly", `--right: "fly" is none of the rights`},
		{"create a --expires soon", "--expires: want a time"},
		{"create a --expires -1d", "--expires: want a time"},
		{"create a --expires 9999999d", "--expires: want a time"},
		{"create", "accepts 1 arg"},
	} {
		if _, complaint := do(2, strings.Fields(wrong.args)...); !strings.Contains(complaint, wrong.says) {
			t.Errorf("%s: %s", wrong.args, complaint)
		}
	}
	if err := os.Chmod(filepath.Join(home, "joulemux", "tokens"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, complaint := do(1, "list"); !strings.Contains(complaint, "mode 0600") {
		t.Errorf("of a file that others may read: %s", complaint)
	}
}
