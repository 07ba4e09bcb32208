package daemon_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/dbus"
	"github.com/joulemux/joulemux/power/powertest"
)

// laptop is a recorded machine whose files can be changed while a daemon runs.
type laptop struct {
	t      *testing.T
	folder string
}

// optimus is a laptop with an NVIDIA GPU, on line power.
func optimus(t *testing.T) laptop {
	t.Helper()
	l := laptop{t, t.TempDir()}
	if err := powertest.Load(t, "optimus").WriteSys(l.folder); err != nil {
		t.Fatal(err)
	}
	l.set("class/power_supply/AC0/online", "1")
	l.set("class/power_supply/BAT0/status", "Charging")
	return l
}

// set replaces a file, whoever reads it.
func (l laptop) set(name, text string) {
	l.t.Helper()
	name = filepath.Join(l.folder, name)
	if err := errors.Join(os.WriteFile(name+".new", []byte(text+"\n"), 0o600), os.Rename(name+".new", name)); err != nil {
		l.t.Fatal(err)
	}
}

// heat makes the processor as hot as that, in thousandths of a degree.
func (l laptop) heat(temperature string) {
	l.set("devices/platform/coretemp.0/hwmon/hwmon5/temp1_input", temperature)
}

func TestAProcessorThatIsTooHotIsGivenNoWork(t *testing.T) {
	machine := optimus(t)
	machine.heat("97000")
	ollama := daemontest.Serve(t, daemontest.CannedOllama())
	d := daemontest.Start(t, daemontest.Options{
		Config: backends(map[string]string{"igpu": ollama, "cpu": ollama}), Sys: os.DirFS(machine.folder),
	})
	a := ask(t, d, "POST", "/api/generate", generate)
	if a.status != 429 || a.header.Get("Retry-After") != "10" ||
		!strings.Contains(a.body, "ollama-cpu: too hot: 97 °C; ollama-igpu: too hot: 97 °C") {
		t.Errorf("where everything is too hot, a job is answered %d, %v, %s", a.status, a.header, a.body)
	}
	if s := status(t, d); s.Heat == nil || !s.Heat.Vetoed || !strings.Contains(s.ActiveReason, "too hot: 97 °C") {
		t.Errorf("the status is %+v, %s", s.Heat, s.ActiveReason)
	}
	for _, b := range status(t, d).Backends {
		if b.Status.Message != "too hot: 97 °C" {
			t.Errorf("%s says %q", b.ID, b.Status.Message)
		}
	}
	served := func() bool { return ask(t, d, "POST", "/api/generate", generate).status == 200 }

	machine.heat("60000")
	daemontest.Eventually(t, "a job on a processor that has cooled down", served)
	machine.heat("99000")
	daemontest.Eventually(t, "a job that is refused since it is hot again", func() bool { return !served() })

	d.Configure(backends(map[string]string{"igpu": ollama, "cpu": ollama, "nvidia": ollama}))
	d.Await("the configuration has changed")
	if got := ran(t, d); got != "ollama-nvidia" {
		t.Errorf("with a discrete GPU, it ran on %s", got)
	}
	hot := strings.Replace(generate, "{", `{"joulemux":{"target":"cpu"},`, 1)
	if a := ask(t, d, "POST", "/api/generate", hot); a.status != 429 || !strings.Contains(a.body, wire.CodeBusy) {
		t.Errorf("a job for the processor alone is answered %d, %s", a.status, a.body)
	}
}

func TestWhereJobsGoIsToldAsJobsFindIt(t *testing.T) {
	machine := optimus(t)
	ollama := daemontest.Serve(t, daemontest.CannedOllama())
	d := daemontest.Start(t, daemontest.Options{
		Config: backends(map[string]string{"igpu": ollama, "cpu": ollama}), Sys: os.DirFS(machine.folder),
	})
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", manager.LocalAddr().String())
	peer := d.Bus.Connect(t)
	if err := peer.AddMatchSignal(godbus.WithMatchSender(dbus.RouterName), godbus.WithMatchMember("PropertiesChanged")); err != nil {
		t.Fatal(err)
	}
	signals := make(chan *godbus.Signal, 100)
	peer.Signal(signals)
	expect := func(active godbus.ObjectPath, line string) {
		t.Helper()
		_ = manager.SetReadDeadline(time.Now().Add(daemontest.Patience))
		for told, buf := "", make([]byte, 1000); !strings.Contains(told, line); {
			n, err := manager.Read(buf)
			if err != nil {
				t.Fatalf("last the service manager was told %q, %v", told, err)
			}
			told = string(buf[:n])
		}
		timeout := time.After(daemontest.Patience)
		for {
			select {
			case s := <-signals:
				if changed, ok := s.Body[1].(map[string]godbus.Variant); ok && changed["ActiveBackend"].Value() == active {
					return
				}
			case <-timeout:
				t.Fatalf("no signal has the active backend %s", active)
			}
		}
	}
	machine.heat("97000")
	daemontest.Eventually(t, "a job is refused", func() bool { return ask(t, d, "POST", "/api/generate", generate).status == 429 })
	expect("/", ", no backend")
	machine.heat("60000")
	daemontest.Eventually(t, "a job is answered", func() bool { return ask(t, d, "POST", "/api/generate", generate).status == 200 })
	expect("/io/github/joulemux/Router1/backend/ollama_2digpu", ", jobs go to ollama-igpu")
}
