package daemon_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon"
	"github.com/joulemux/joulemux/daemon/daemontest"
)

const faulty = "rooting: {}\nlimits: {prompt_mib: many}\n"

// Whoever asks is told what is wrong, wherever they ask: the daemon was perhaps
// started by them, and nobody reads its log.
func TestFaultyConfigurationRefusesJobsUntilItIsMended(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: faulty})
	expectRefused(t, d, "line 2: rooting", "line 3: limits.prompt_mib")
	d.Configure("routing: {power_awear: true}\n")
	d.Await("routing.power_awear")
	expectRefused(t, d, `did you mean "power_aware"`)
	d.Configure(oneBackend(t))
	d.Await("the configuration has changed")
	if got := ran(t, d); got != "ollama-cpu" {
		t.Errorf("a job ran on %s", got)
	}
	if _, err := answerOver(t, d.Bus.Connect(t)); err != nil {
		t.Errorf("over D-Bus: %v", err)
	}
	daemontest.Eventually(t, "the port that was mended too", func() bool {
		a, err := request(t, briefly(), "GET", "http://"+d.Addr+"/api/tags", nil)
		return err == nil && strings.Contains(a.body, model)
	})
}

// expectRefused checks that every wire says what is wrong.
func expectRefused(t *testing.T, d *daemontest.Daemon, wants ...string) {
	t.Helper()
	said := map[string]string{"the status": status(t, d).ActiveReason}
	for _, path := range []string{"/api/generate", "/api/show", "/joulemux/v1/generate"} {
		a := ask(t, d, "POST", path, `{"prompt":"Why?"}`)
		if a.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d", path, a.status)
		}
		said[path] = a.body
	}
	for _, path := range []string{"/api/tags", "/api/version", "/joulemux/v1/models"} {
		said[path] = ask(t, d, "GET", path, "").body
	}
	peer := d.Bus.Connect(t)
	_, err := answerOver(t, peer)
	said["Generate"] = fmt.Sprint(err)
	said["ListModels"] = fmt.Sprint(call(t, inference(peer), "ListModels").Err)
	for where, text := range said {
		for _, want := range append(wants, "the configuration has faults: "+d.ConfigPath()) {
			if !strings.Contains(strings.ReplaceAll(text, `\"`, `"`), want) {
				t.Errorf("%s: no %q in %q", where, want, text)
			}
		}
	}
}

func TestConfigurationThatIsADirectory(t *testing.T) {
	dir := t.TempDir()
	if _, err := daemon.Check(dir); err == nil || !strings.Contains(err.Error(), dir+": it is no regular file, but a directory") {
		t.Errorf("got %v", err)
	}
}

func TestReload(t *testing.T) {
	for how, reload := range map[string]func(d *daemontest.Daemon, text string){
		"by a change of the file": func(d *daemontest.Daemon, text string) { d.Configure(text) },
		"by a signal":             func(d *daemontest.Daemon, text string) { changeUnseen(t, d, text); d.Reload() },
	} {
		t.Run(how, func(t *testing.T) {
			first := oneBackend(t) + "#" + strings.Repeat(" ", len(faulty)) + "\n"
			d := daemontest.Start(t, daemontest.Options{Config: first})
			if got := ran(t, d); got != "ollama-cpu" {
				t.Fatalf("a job ran on %s", got)
			}
			reload(d, faulty)
			d.Await("the configuration has faults, the old one stays in force")
			d.Await("line 2: rooting")
			daemontest.Eventually(t, "the fault in the status", func() bool {
				s := status(t, d).Faults
				return strings.HasPrefix(s, "configuration has faults, the old one is in force: ") && strings.Contains(s, "line 2: rooting")
			})
			if got := ran(t, d); got != "ollama-cpu" {
				t.Errorf("with faults a job ran on %s", got)
			}
			reload(d, strings.ReplaceAll(first, "cpu", "npu"))
			d.Await("the configuration has changed")
			if got := ran(t, d); got != "ollama-npu" {
				t.Errorf("after the reload a job ran on %s", got)
			}
			if s := status(t, d).Faults; s != "" {
				t.Errorf("after the reload the status says %q", s)
			}
		})
	}
}

// changeUnseen changes the configuration so that nobody notices who does not
// read it: file, size and time stay.
func changeUnseen(t *testing.T, d *daemontest.Daemon, text string) {
	t.Helper()
	path := d.ConfigPath()
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	server, _, _ := strings.Cut(string(old), "\n")
	fresh := server + "\n" + text
	fresh += strings.Repeat("\n", len(old)-len(fresh))
	if err := errors.Join(os.WriteFile(path, []byte(fresh), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// The signal comes again and again until the change of the file has been
// noticed too, which takes a moment: the race detector sees it if two read.
func TestReloadsDoNotOvertakeEachOther(t *testing.T) {
	first := oneBackend(t)
	d := daemontest.Start(t, daemontest.Options{Config: first})
	for _, name := range []string{"a", "b", "c"} {
		d.Configure(strings.ReplaceAll(first, "ollama-cpu", name))
		for began := time.Now(); time.Since(began) < 300*time.Millisecond; {
			d.Reload()
		}
	}
	if got := ran(t, d); got != "c" {
		t.Errorf("a job ran on %s, want the last that was configured", got)
	}
}

func TestConfigurationThatBecomesADirectoryChangesNothing(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: oneBackend(t)})
	if err := errors.Join(os.Remove(d.ConfigPath()), os.Mkdir(d.ConfigPath(), 0o700)); err != nil {
		t.Fatal(err)
	}
	d.Await("is no regular file, but a directory")
	if got := ran(t, d); got != "ollama-cpu" {
		t.Errorf("a job ran on %s", got)
	}
}

func TestBackendsAreLookedAtAfterAReload(t *testing.T) {
	first := oneBackend(t)
	d := daemontest.Start(t, daemontest.Options{Config: first})
	d.Await("backend is up")
	d.Configure(strings.ReplaceAll(first, "ollama-cpu", "renamed"))
	d.Await(`backend.id=renamed`) // is up, without any job
}

func TestConfiguredServerIsNotFoundAgain(t *testing.T) {
	addr := daemontest.Serve(t, daemontest.CannedOllama())
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	d := daemontest.Start(t, daemontest.Options{Config: backends(map[string]string{"npu": addr}) + "discover: {ports: [" + port + "]}\n"})
	if got := ran(t, d); got != "ollama-npu" {
		t.Errorf("a job ran on %s", got)
	}
	if all := status(t, d).Backends; len(all) != 1 {
		t.Errorf("backends are %+v", all)
	}
}
