package config_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/daemon/document"
	"github.com/joulemux/joulemux/power"
)

func TestNothingIsTheDefault(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "{}", "server:\nrouting: ~\n", "---\n"} {
		c, err := config.Parse([]byte(text))
		if err != nil || !reflect.DeepEqual(c, config.Default()) {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

// earlier is in the words of the first design of this system.
const earlier = `
server:
  grpc_port: 50052
  http_port: 9090
backends:
  - id: "ollama-npu"
    type: "ollama"
    name: "NPU"
    hardware: "npu"
    enabled: true
    endpoint: "http://localhost:11434"
    characteristics:
      power_watts: 3.5
      avg_latency_ms: 800
      max_tokens_per_second: 10
      priority: 1
  - id: "ollama-nvidia"
    type: "ollama"
    hardware: "nvidia"
    endpoint: "http://localhost:11436/"
    slots: 4
    characteristics: {power_watts: 55.0, avg_latency_ms: 150, priority: 10}
  - id: "openai"
    type: "openai"
    hardware: "cloud"
    enabled: false
routing:
  default_backend: "ollama-npu"
  power_aware: false
  auto_optimize_latency: false
  learn: false
monitoring:
  enabled: true
  prometheus_port: 9090
  log_level: "debug"
`

func TestEarlierVocabularyIsUnderstood(t *testing.T) {
	c, err := config.Parse([]byte(earlier))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Server.HTTPPort, want.Server.GRPCPort = 9090, 50052
	want.Backends = []config.Backend{
		{
			ID: "ollama-npu", Name: "NPU", Type: "ollama", Hardware: power.NPU, Endpoint: url.URL{Scheme: "http", Host: "localhost:11434"},
			Power: power.Watts(3.5), Latency: 800 * time.Millisecond, TokensPerSec: 10, Priority: 1,
		},
		{
			ID: "ollama-nvidia", Type: "ollama", Hardware: power.NVIDIA, Endpoint: url.URL{Scheme: "http", Host: "localhost:11436"},
			Slots: 4, Power: 55 * power.Watt, Latency: 150 * time.Millisecond, Priority: 10,
		},
	}
	want.Ports = nil // who says which servers there are gets no others
	want.Routing = config.Routing{DefaultBackend: "ollama-npu", Curious: true}
	want.LogLevel = "debug"
	want.Notes = []string{
		"line 34: monitoring.prometheus_port: understood, but metrics have no port of their own: they are at /metrics on server.http_port",
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestOtherMachinesAreLetInWithANote(t *testing.T) {
	c, err := config.Parse([]byte("server:\n  host: 0.0.0.0\n  hosts: [Desk.example.org., nas]\n  require_token: true\n  origins: [\"*\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Server.Host, want.Server.HostLine, want.Server.Hosts = "0.0.0.0", 2, []string{"desk.example.org", "nas"}
	want.Server.RequireToken, want.Server.Origins = true, []string{"*"}
	want.Notes = []string{
		"line 2: server.host: other machines are let in who show a token, and nothing is encrypted: who is on the way can read tokens, prompts and answers",
		"line 5: server.origins[0]: any web page that this user opens may ask, and read the answers",
	}
	if !reflect.DeepEqual(c, want) || !c.Server.Exposed() || config.Default().Server.Exposed() {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestEverythingElse(t *testing.T) {
	c, err := config.Parse([]byte(`
server: {socket: /tmp/s, host: "::1", origins: ["https://a.example"], allow_admin: true}
discover: {ports: [1234]}
backends: [{id: a, endpoint: "http://a:1", hardware: dgpu, characteristics: {hold_watts: 8.5}}]
models:
  default: {battery: small, other: large}
thresholds: {saver_percent: 60, low_percent: 30.5, critical_percent: 10, recovery_percent: 5, steady_line_seconds: 1.5, steady_charge_seconds: 60}
tiers:
  saver: {second_worth_watts: 0, dgpu: never, background: wait, keep_alive_seconds: 20}
  battery: {dgpu: in-time, keep_alive_free_seconds: 0}
routing:
  deadlines: {chat: {after_seconds: 20}, completion: {per_token_seconds: 0.05}, background: {after_seconds: 0, per_token_seconds: 0}}
  may_miss: 0
  in_time_joules: 50
  curiosity: false
limits:
  body_mib: 1
  prompt_mib: 0.5
  load_seconds: 60
  per_client: {jobs: 4, jobs_per_minute: 60, joules_per_day: 50_000}
  clients: {phone: {joules_per_day: 2.5}, "a b": {jobs: 1}}
cache: {size_mib: 0.5, share: true, idle_seconds: 90}
energy: {price_per_kwh: 0.32, currency: EUR}
`))
	if err != nil {
		t.Fatal(err)
	}
	zero, price, never, joules := power.Power(0), 0.32, 0.0, 50*power.Joule
	after := func(d time.Duration) *time.Duration { return &d }
	want := config.Default()
	want.Server = config.Server{Socket: "/tmp/s", Host: "::1", HTTPPort: 8080, GRPCPort: 50051, Origins: []string{"https://a.example"}, AllowAdmin: true}
	want.Ports = []int{1234}
	want.Models = map[power.Tier]string{power.Battery: "small", power.TierUnknown: "large"}
	want.Policy = power.Policy{Saver: 60, Low: 30.5, Critical: 10, Recovery: 5, SteadyLine: 1500 * time.Millisecond, SteadyCharge: time.Minute}
	want.Tiers = map[power.Tier]config.Tier{
		power.Saver:   {SecondWorth: &zero, DiscreteGPU: "never", Background: "wait", KeepAlive: after(20 * time.Second)},
		power.Battery: {DiscreteGPU: "in-time", KeepAliveFree: after(0)},
	}
	want.Backends = []config.Backend{{
		ID: "a", Type: "auto", Hardware: power.DiscreteGPU, Endpoint: url.URL{Scheme: "http", Host: "a:1"}, Hold: power.Watts(8.5),
	}}
	want.Routing.Chat.After, want.Routing.Completion.PerToken = after(20*time.Second), after(50*time.Millisecond)
	want.Routing.Background = config.Due{After: after(0), PerToken: after(0)}
	want.Routing.MayMiss, want.Routing.InTime, want.Routing.Curious = &never, &joules, false
	want.Limits = config.Limits{
		Body: 1 << 20, Prompt: 1 << 19, Load: time.Minute,
		PerClient: config.Quota{Jobs: 4, PerMinute: 60, PerDay: 50_000 * power.Joule},
		Clients:   map[string]config.Quota{"phone": {PerDay: power.Joules(2.5)}, "a b": {Jobs: 1}},
	}
	want.Cache = config.Cache{Bytes: 1 << 19, Share: true, Idle: 90 * time.Second}
	want.Energy = config.Energy{PricePerKWh: &price, Currency: "EUR"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestBackendsOfOtherKinds(t *testing.T) {
	c, err := config.Parse([]byte(`
backends:
  - {id: npu, type: ovms, hardware: npu, endpoint: "http://127.0.0.1:8000/v3/", models: {"qwen2.5:0.5b": Qwen2.5-0.5B-int4-ov}}
  - {id: cpu, hardware: cpu, endpoint: "unix:///run/llama.sock"}
`))
	want := []config.Backend{
		{
			ID: "npu", Type: "ovms", Hardware: power.NPU, Endpoint: url.URL{Scheme: "http", Host: "127.0.0.1:8000", Path: "/v3"},
			Models: map[string]string{"qwen2.5:0.5b": "Qwen2.5-0.5B-int4-ov"},
		},
		{ID: "cpu", Type: "auto", Hardware: power.CPU, Endpoint: url.URL{Scheme: "unix", Path: "/run/llama.sock"}},
	}
	if err != nil || !reflect.DeepEqual(c.Backends, want) {
		t.Errorf("got  %+v, %v\nwant %+v", c.Backends, err, want)
	}
}

func TestEnergyForNothingHasAPrice(t *testing.T) {
	c, err := config.Parse([]byte("energy: {price_per_kwh: 0}"))
	if err != nil || c.Energy.PricePerKWh == nil || *c.Energy.PricePerKWh != 0 {
		t.Errorf("got %+v, %v", c.Energy, err)
	}
	c, err = config.Parse([]byte("energy: {currency: \"£\"}"))
	if err != nil || c.Energy.PricePerKWh != nil || c.Energy.Currency != "£" {
		t.Errorf("without a price: got %+v, %v", c.Energy, err)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"servr: {}", `line 1: servr: no such key; did you mean "server"?`},
		{"routing:\n  power_awear: true", `line 2: routing.power_awear: no such key; did you mean "power_aware"?`},
		{"limits: {zzzzzzzzz: 1}", `line 1: limits.zzzzzzzzz: no such key; there are body_mib, clients, load_seconds, per_client, prompt_mib`},
		{"limits: {per_client: {jobs: 0}}", `line 1: limits.per_client.jobs: want a number from 1 to 1e+06, got 0`},
		{"limits:\n  clients:\n    phone: {joule_per_day: 5}", `line 3: limits.clients.phone.joule_per_day: no such key; did you mean "joules_per_day"?`},
		{"limits: {clients: [phone]}", `line 1: limits.clients: want keys and values, got a list`},
		{"cache:\n  size_mib: -1", `line 2: cache.size_mib: want a number from 0 to 1024, got -1`},
		{"cache: {size_mib: 1025}", `line 1: cache.size_mib: want a number from 0 to 1024, got 1025`},
		{"cache: {idle_seconds: 0}", `line 1: cache.idle_seconds: want a number from 1 to 604800, got 0`},
		{"cache: {share: 1}", `line 1: cache.share: want true or false, got "1"`},
		{"cache: {shared: true}", `line 1: cache.shared: no such key; did you mean "share"?`},
		{"cache: 8", `line 1: cache: want keys and values, got "8"`},
		{"server: {http_port: eighty}", `line 1: server.http_port: want a number, got "eighty"`},
		{"server: {http_port: 80.5}", `line 1: server.http_port: want a whole number, got 80.5`},
		{"server: {http_port: 70000}", `line 1: server.http_port: want a number from 0 to 65535, got 70000`},
		{"server: {grpc_port: -1}", `line 1: server.grpc_port: want a number from 0 to 65535, got -1`},
		{"server: {grpc_port: 8080}", `line 1: server: http_port and grpc_port are both 8080`},
		{"server: {host: desk.example.org}", `line 1: server.host: "desk.example.org" is no IP address, such as 127.0.0.1`},
		{"server: {hosts: [\"desk:8080\"]}", `line 1: server.hosts[0]: want a name such as desk.example.org, without a port, got "desk:8080"`},
		{"server: {hosts: desk}", `line 1: server.hosts: want a list, got "desk"`},
		{"server: {require_token: 7}", `line 1: server.require_token: want true or false, got "7"`},
		{"server: [1]", `line 1: server: want keys and values, got a list`},
		{"server: {}\nserver: {}", `line 2: server: is there twice, first on line 1`},
		{"routing: {power_aware: maybe}", `line 1: routing.power_aware: want true or false, got "maybe"`},
		{"backends: {}", `line 1: backends: want a list, got keys and values`},
		{"backends: [{endpoint: \"http://a:1\"}]", `line 1: backends[0]: a backend needs an id`},
		{"backends: [{id: a}]", `line 1: backends[0]: a backend needs an endpoint, such as http://127.0.0.1:11434`},
		{"backends: [{id: a b, endpoint: \"http://a:1\"}]", `line 1: backends[0]: the id "a b" has other characters than letters, digits, '-', '_' and '.'`},
		{"backends:\n- {id: a, endpoint: \"http://a:1\"}\n- {id: a, endpoint: \"http://a:2\"}", `line 3: backends[1]: the id "a" is taken by the backend on line 2`},
		{"backends: [{id: a, endpoint: \"ftp://a:1\"}]", `line 1: backends[0].endpoint: want http://HOST:PORT, https://HOST:PORT or unix:///PATH, got "ftp://a:1"`},
		{"backends: [{id: a, endpoint: \"http://u:p@a:1?b\"}]", `line 1: backends[0].endpoint: want no more than a host, port and path, as in http://a:1`},
		{"backends: [{id: a, endpoint: \"http://a:1\", slots: 0}]", `line 1: backends[0].slots: want a number from 1 to 1024, got 0`},
		{"backends: [{id: a, endpoint: \"http://a:1\", slots: 1.5}]", `line 1: backends[0].slots: want a whole number, got 1.5`},
		{"backends: [{id: a, endpoint: \"http://a:1\", slots: 1025}]", `line 1: backends[0].slots: want a number from 1 to 1024, got 1025`},
		{"backends: [{id: a, endpoint: \"http://a:99999\"}]", `line 1: backends[0].endpoint: port 99999 is none from 1 to 65535`},
		{"backends: [{id: a, endpoint: \"http://a:1\", hardware: tpu}]", `line 1: backends[0].hardware: hardware "tpu" is none of npu, igpu, nvidia, dgpu, cpu, cloud`},
		{"backends: [{id: a, endpoint: \"http://a:1\", type: lamma}]", `line 1: backends[0].type: want one of auto, ollama, fastflowlm, openai, llama-server, vllm, ovms, lemonade, got "lamma"`},
		{"backends: [{id: a, endpoint: \"http://a:1/v3\", type: ollama}]", `line 1: backends[0].endpoint: Ollama's API has no path before it, such as "/v3"`},
		{"backends: [{id: a, endpoint: \"http://a:1\", models: [m]}]", `line 1: backends[0].models: want keys and values, got a list`},
		{"backends: [{id: a, endpoint: \"http://a:1\", models: {m: \"\"}}]", `line 1: backends[0].models.m: want the client's name of a model, and the server's`},
		{"backends:\n- id: a\n  endpoint: \"http://a:1\"\n  models:\n    m: x\n    m: y", `line 6: backends[0].models.m: is there twice, first on line 5`},
		{"backends: [{id: a, endpoint: \"http://a:1\"}]\nrouting: {default_backend: b}", `line 2: routing.default_backend: no backend "b" is configured; did you mean "a"?`},
		{"thresholds: {low_percent: 60}", `line 1: thresholds: want critical_percent <= low_percent <= saver_percent, got 5, 60 and 50`},
		{"tiers: {battery: {dgpu: sometimes}}", `line 1: tiers.battery.dgpu: want one of always, in-time, latency-critical, named, never, got "sometimes"`},
		{"energy: {price_per_kwh: -0.1}", `line 1: energy.price_per_kwh: want a number from 0 to 100000, got -0.1`},
		{"energy: {price_per_kwh: .inf}", `line 1: energy.price_per_kwh: want a number, got ".inf"`},
		{"energy: {price_per_kwh: .nan}", `line 1: energy.price_per_kwh: want a number, got ".nan"`},
		{"energy: {price_per_kwh: cheap}", `line 1: energy.price_per_kwh: want a number, got "cheap"`},
		{"energy: {currency: doubloons}", `line 1: energy.currency: want at most 8 printable characters, such as EUR, got "doubloons"`},
		{`energy: {currency: "\e[2J"}`, `line 1: energy.currency: want at most 8 printable characters, such as EUR, got "\x1b[2J"`},
		{"tiers: {battery: {keep_alive_seconds: -1}}", `line 1: tiers.battery.keep_alive_seconds: want a number from 0 to 604800, got -1`},
		{"tiers: {battery: {keep_alive: 5m}}", `line 1: tiers.battery.keep_alive: no such key; there are background, dgpu, keep_alive_free_seconds, keep_alive_seconds, second_worth_watts`},
		{"routing: {may_miss: 2}", `line 1: routing.may_miss: want a number from 0 to 1, got 2`},
		{"routing: {in_time_joules: -1}", `line 1: routing.in_time_joules: want a number from 0 to 100000, got -1`},
		{"routing: {deadlines: {chat: 8}}", `line 1: routing.deadlines.chat: want keys and values, got "8"`},
		{"routing: {deadlines: {chats: {}}}", `line 1: routing.deadlines.chats: no such key; did you mean "chat"?`},
		{"routing: {deadlines: {chat: {after_seconds: 1e9}}}", `line 1: routing.deadlines.chat.after_seconds: want a number from 0 to 604800, got 1e9`},
		{"backends: [{id: a, endpoint: \"http://a:1\", characteristics: {hold_watts: 0}}]", `line 1: backends[0].characteristics.hold_watts: want a number from 0.1 to 1000, got 0`},
		{"backends: [{id: a, endpoint: \"http://a:1\", characteristics: {memory_gib: 0}}]", `line 1: backends[0].characteristics.memory_gib: want a number from 0.1 to 65536, got 0`},
		{"discover: {ports: [1, 1]}", `line 1: discover.ports[1]: port 1 is there twice`},
		{"monitoring: {log_level: loud}", `line 1: monitoring.log_level: want one of debug, info, warn, error, got "loud"`},
		{"[]", `line 1: want keys and values, got a list`},
		{"a\n---\nb", `more than one YAML document`},
	} {
		_, err := config.Parse([]byte(c.text))
		if err == nil || err.Error() != c.want {
			t.Errorf("%q:\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := config.Parse([]byte("monitoring: {log_level: 3}\nserver:\n  http_port: x\n  hsot: y\nrouting: {power_aware: 1}\n"))
	var faults document.Faults
	if !errors.As(err, &faults) || len(faults) != 4 {
		t.Fatalf("got %v", err)
	}
	for i, line := range []int{1, 3, 4, 5} {
		if faults[i].Line != line {
			t.Errorf("fault %d is on line %d, want %d", i, faults[i].Line, line)
		}
	}
}

func TestBrokenYAML(t *testing.T) {
	for _, text := range []string{"a: [", "\ta: 1", "a: b: c", "\xff\xfe\x00", "&a [*a"} {
		if _, err := config.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "YAML") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if c, err := config.Load(filepath.Join(dir, "none.yaml")); err != nil || !reflect.DeepEqual(c, config.Default()) {
		t.Errorf("a file that does not exist: %v", err)
	}
	if _, err := config.Load(dir); err == nil || !strings.Contains(err.Error(), "a directory") {
		t.Errorf("a directory: %v", err)
	}
	path := filepath.Join(dir, "config.yaml")
	write(t, path, "srever: 1")
	if _, err := config.Load(path); err == nil || !strings.HasPrefix(err.Error(), path+": line 1: srever") {
		t.Errorf("a fault: %v", err)
	}
	write(t, path, strings.Repeat("#", 2<<20))
	if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a huge file: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(os.Mkdir(at("etc"), 0o700))
	path := at("etc/joulemux/config.yaml")
	changes := make(chan struct{}, 100)
	watching := make(chan error, 1)
	go func() { watching <- config.Watch(t.Context(), path, func() { changes <- struct{}{} }) }()
	select {
	case <-changes: // the watch is on
	case err := <-watching:
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		do   func()
	}{
		{"made, with its folder", func() { must(os.Mkdir(at("etc/joulemux"), 0o700)); write(t, path, "# new") }},
		{"written in place", func() { write(t, path, "# in place") }},
		{"replaced, as editors do", func() { write(t, path+".new", "# replaced"); must(os.Rename(path+".new", path)) }},
		{"made unreadable", func() { must(os.Chmod(path, 0)) }},
		{"made readable again", func() { must(os.Chmod(path, 0o600)) }},
		{"removed", func() { must(os.Remove(path)) }},
		{"made a link to a dotfile", func() {
			must(os.Mkdir(at("dotfiles"), 0o700))
			write(t, at("dotfiles/joulemux.yaml"), "# linked")
			must(os.Symlink(at("dotfiles/joulemux.yaml"), path))
		}},
		{"the dotfile is written", func() { write(t, at("dotfiles/joulemux.yaml"), "# linked, and written") }},
		{"the dotfile is replaced", func() {
			write(t, at("dotfiles/new"), "# linked, and replaced, too")
			must(os.Rename(at("dotfiles/new"), at("dotfiles/joulemux.yaml")))
		}},
		{"the folder becomes a link", func() {
			must(os.Mkdir(at("real"), 0o700))
			write(t, at("real/config.yaml"), "# in a linked folder")
			must(os.RemoveAll(at("etc/joulemux")))
			must(os.Symlink(at("real"), at("etc/joulemux")))
		}},
		{"the link of the folder is changed", func() {
			must(os.Mkdir(at("other"), 0o700))
			write(t, at("other/config.yaml"), "# in another linked folder")
			must(os.Symlink(at("other"), at("etc/new")))
			must(os.Rename(at("etc/new"), at("etc/joulemux")))
		}},
	} {
		for len(changes) > 0 {
			<-changes
		}
		c.do()
		select {
		case <-changes:
		case err := <-watching:
			t.Fatalf("%s: the watch ended: %v", c.what, err)
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: no change was seen", c.what)
		}
	}
}

func TestWatchOfAPathAsItIsTyped(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("etc", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"config.yaml", "etc//config.yaml", "etc/../other.yaml"} {
		changes := make(chan struct{}, 100)
		go func() { _ = config.Watch(t.Context(), path, func() { changes <- struct{}{} }) }()
		<-changes
		write(t, path, "# new")
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: no change was seen", path)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(earlier))
	f.Add([]byte("backends: [&a {id: x}, *a]\n<<: {server: 1}"))
	f.Add([]byte("models: {default: {battery: [1]}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.Parse(text)
		var faults document.Faults
		switch {
		case err == nil && c.LogLevel == "":
			t.Error("a configuration that is not complete")
		case err != nil && (!errors.As(err, &faults) || len(faults) == 0):
			t.Errorf("%v is of type %T", err, err)
		}
	})
}

func TestWhatIsNoFile(t *testing.T) {
	folder := t.TempDir()
	pipe := filepath.Join(folder, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{folder: "but a directory", pipe: "but a pipe", "/dev/zero": "but a device"} {
		var faults document.Faults
		if _, err := config.Load(path); !errors.As(err, &faults) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want it to say %q", path, err, says)
		}
	}
}
