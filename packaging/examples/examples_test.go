// Package examples_test runs what packaging/examples has for people to begin
// with, against a real daemon and a real Ollama.
package examples_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/packaging/rig/rigtest"
)

const (
	model  = rigtest.Model
	prompt = "Why is the sky blue?"
)

// laptop is a daemon before four backends, which one Ollama stands for.
func laptop(t *testing.T) *daemontest.Daemon {
	t.Helper()
	ollama := rigtest.Ollama(t)
	// What is loaded is loaded on all four: no job waits for it on one of them.
	loaded, err := http.Post(ollama.URL()+"/api/generate", "application/json", strings.NewReader(`{"model": "`+model+`", "keep_alive": "1h"}`))
	if err != nil || loaded.Body.Close() != nil || loaded.StatusCode != http.StatusOK {
		t.Fatalf("the model does not load: %v, %v", loaded, err)
	}
	var config strings.Builder
	config.WriteString("models: {default: " + model + "}\n")
	// All four would turn out to be equally fast, and cost what is assumed.
	config.WriteString("routing: {learn: false, curiosity: false}\nbackends:\n")
	for id, hardware := range map[string]string{
		"ollama-npu": "npu", "ollama-igpu": "igpu", "ollama-nvidia": "nvidia", "ollama-cpu": "cpu",
	} {
		fmt.Fprintf(&config, "  - {id: %s, hardware: %s, endpoint: %q}\n", id, hardware, ollama.URL())
	}
	return daemontest.Start(t, daemontest.Options{Config: config.String()})
}

// output runs an example in the test's environment, in which the daemon's socket
// and bus are, and returns what it prints.
func output(t *testing.T, program string, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, err := try(t, program, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", program, err, stdout, stderr)
	}
	return stdout, stderr
}

func try(t *testing.T, program string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "MODEL="+model)
	var out, diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	err = cmd.Run()
	t.Logf("%s\n%s%s", strings.Join(cmd.Args, " "), &out, &diagnostics)
	return out.String(), diagnostics.String(), err
}

func TestRoutes(t *testing.T) {
	d := laptop(t)
	program := filepath.Join(t.TempDir(), "routes")
	output(t, "go", "build", "-o", program, "./routes")
	got, _ := output(t, program, "-address", d.GRPCAddr, "-model", model, "-tokens", "6")
	cases := regexp.MustCompile(`(?m)^\d\. `).Split(got, -1)[1:]
	backends := []string{"", "ollama-nvidia", "ollama-npu", "ollama-npu", "ollama-igpu", "", "", "ollama-npu"}
	if len(cases) != len(backends) {
		t.Fatalf("%d cases, want %d:\n%s", len(cases), len(backends), got)
	}
	for i, text := range cases {
		for _, line := range []string{
			`backend   ollama-\w+ \(\w+\)`, `reason    .{20,}`, `took      \d+ tokens, [1-9]\d*\.\d tokens/s, first after \d+ ms`,
			`energy    [0-9.]+ J, estimated \(.+ W assumed x .+ s\)`,
		} {
			if !regexp.MustCompile(line).MatchString(text) {
				t.Errorf("case %d does not have %q:\n%s", i+1, line, text)
			}
		}
		if want := "backend   " + backends[i]; !strings.Contains(text, want) {
			t.Errorf("case %d does not have %q:\n%s", i+1, want, text)
		}
	}
	if strings.Contains(cases[5], "nvidia (") {
		t.Errorf("55 W where 15 are allowed:\n%s", cases[5])
	}
}

func TestRoutesSaysWhatIsRefused(t *testing.T) {
	d := laptop(t)
	program := filepath.Join(t.TempDir(), "routes")
	output(t, "go", "build", "-o", program, "./routes")
	got, _ := output(t, program, "-address", d.GRPCAddr, "-model", "none")
	if n := strings.Count(got, "refused   not_found: "); n != 8 {
		t.Errorf("%d of 8 are refused:\n%s", n, got)
	}
	if _, said, err := try(t, program, "-address", "127.0.0.1:1"); err == nil || !strings.Contains(said, "unavailable") {
		t.Errorf("without a daemon it says %q, %v", said, err)
	}
}

func TestPythonOverDBus(t *testing.T) {
	laptop(t)
	text, route := output(t, "python/ask.py", prompt, "max_tokens=12", "target=igpu", "latency_critical=true")
	if strings.TrimSpace(text) == "" || !strings.Contains(route, "ollama-igpu (igpu), ") {
		t.Errorf("it says %q, %q", text, route)
	}
	if _, said, err := try(t, "python/ask.py", prompt, "max_tokens=many"); err == nil || !strings.Contains(said, "InvalidArgs: invalid request: max_tokens: ") {
		t.Errorf("of a wrong option it says %q, %v", said, err)
	}
}

func TestGJSOverDBus(t *testing.T) {
	laptop(t)
	text, route := output(t, "gjs/ask.js", prompt)
	if strings.TrimSpace(text) == "" || !regexp.MustCompile(`ollama-\w+ \(\w+\), .+`).MatchString(route) {
		t.Errorf("it says %q, %q", text, route)
	}
	if _, said, err := try(t, "gjs/ask.js"); err == nil || !strings.Contains(said, "usage") {
		t.Errorf("without a prompt it says %q, %v", said, err)
	}
}

func TestShell(t *testing.T) {
	laptop(t)
	text, routes := output(t, "shell/ask.sh", prompt)
	if !regexp.MustCompile(`(?m)^ollama-\w+ \(\w+\), 48 tokens, estimated [0-9.e-]+ J$`).MatchString(text) {
		t.Errorf("over D-Bus it says\n%s", text)
	}
	if !regexp.MustCompile(`(?m)^ollama-\w+: .+`).MatchString(routes) {
		t.Errorf("over HTTP it says\n%s", routes)
	}
}

func TestJavaScriptWithOpenAIsPackage(t *testing.T) {
	d := laptop(t)
	folder := t.TempDir()
	for _, name := range []string{".npmrc", "package.json", "package-lock.json", "ask.js"} {
		text, err := os.ReadFile(filepath.Join("javascript", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	output(t, "npm", "--prefix", folder, "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	t.Setenv("OPENAI_BASE_URL", "http://"+d.Addr+"/v1")
	program := filepath.Join(folder, "ask.js")
	text, said := output(t, "node", program, prompt, model)
	if strings.TrimSpace(text) == "" || !regexp.MustCompile(`(?m)^ollama-npu, .+\n[0-9.e-]+ J, estimated$`).MatchString(said) {
		t.Errorf("it says %q, %q", text, said)
	}
	if _, said, err := try(t, "node", program, prompt, "none"); err == nil || !strings.Contains(said, `404 model not found`) {
		t.Errorf("of a model that is not there it says %q, %v", said, err)
	}
}
