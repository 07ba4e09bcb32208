package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

const backendsJSON = `[{"id":"ollama-igpu","type":"ollama","name":"iGPU","hardware":"igpu",` +
	`"status":{"state":"healthy","message":"","last_check_unix":1760000000},` +
	`"capabilities":{"generate":true,"embed":true,"stream":true,"models":["a","b"],"max_context":0},` +
	`"metrics":{"avg_latency_ms":350,"requests_per_minute":2,"error_rate":0.25,"power_watts":12,"power_quality":"estimated","loaded_models":["a"]}},` +
	`{"id":"ollama-nvidia","type":"ollama","name":"","hardware":"nvidia",` +
	`"status":{"state":"unhealthy","message":"connection\trefused","last_check_unix":1760000000},` +
	`"capabilities":{"generate":true,"embed":true,"stream":true,"models":[],"max_context":0},` +
	`"metrics":{"avg_latency_ms":0,"requests_per_minute":0,"error_rate":1,"power_watts":0,"power_quality":"unknown","loaded_models":[]}}]`

// statusJSON is a status at a charge, with more members at its end.
func statusJSON(charge, more string) string {
	return `{"version":"1.2.3","tier":"battery","tier_reason":"discharging","since":"2026-05-06T07:08:09Z",` +
		`"supply":{"source":"upower","battery":true,"discharging":true,"charge_percent":` + charge + `,"text":"` + charge + ` %, discharging"},` +
		`"profile":"","policy":"auto","holds":[],"active_backend":"ollama-igpu","active_reason":"least cost & <fast>",` +
		`"running":0` + more + `,"backends":` + backendsJSON + "}\n"
}

const held = `,"holds":[{"cookie":7,"tier":"battery","reason":"","holder":":1.42","since":"2026-05-06T07:08:09Z"}]`

const measured = `,"draws":[{"domain":"package-0","scope":"package","source":"rapl","watts":4.3},` +
	`{"domain":"gpu 0000:03:00.0","scope":"dgpu","source":"amdgpu","watts":0,"asleep":true}],` +
	`"devices":[{"address":"0000:01:00.0","vendor":"nvidia","kind":"display","status":"suspended","power_state":"D3cold"},` +
	`{"address":"0000:03:00.0","vendor":"amd","kind":"display","status":"active","power_state":"D0","busy_ms":12300,"never_sleeps":true}],` +
	`"unreadable":["package-0","core-0"],"heat":{"celsius":96.4,"vetoed":true,"reason":"too hot"},"degraded":"lap-detected",` +
	`"faults":"configuration has faults, the old one is in force: line 1: nope","cross_check":{"seconds":1920,"battery_joules":19200,"sensors_joules":12288,"ratio":0.64}`

func TestStatusForPeople(t *testing.T) {
	t.Setenv("TZ", "UTC")
	r := replay(t, answers{"GET status": says(statusJSON("62", held+`,"draw_watts":6.42`+measured))})
	const want = `tier              battery, discharging, since 2026-05-06 07:08:09
supply            62 %, discharging
profile           none
policy            auto
hold              battery by :1.42: no reason given, since 2026-05-06 07:08:09
active            ollama-igpu, least cost & <fast>
running           no jobs
faults            configuration has faults, the old one is in force: line 1: nope
draw              6.4 W from the battery
package-0         4.3 W (rapl)
gpu 0000:03:00.0  asleep (amdgpu)
unreadable        package-0, core-0: root alone may read it; the README says how to change that
processor         96 °C, too hot
degraded          lap-detected
sensors           see 64 % of what the battery gave in 32 min
0000:01:00.0      nvidia display, suspended in D3cold
0000:03:00.0      amd display, active in D0, busy for 12 s since its driver was loaded, set never to sleep (power/control is on)
daemon            1.2.3

BACKEND        HARDWARE  STATE      MODELS  LOADED  POWER             LATENCY  PER MINUTE  ERRORS
ollama-igpu    igpu      healthy    2       a       12.0 W estimated  350 ms   2           25 %
ollama-nvidia  nvidia    unhealthy  0       -       unknown           -        0           100 %  connection refused
`
	if out, err, code := run(t, r.socket, nil, "status"); out != want || code != 0 {
		t.Errorf("it writes\n%s\nand not\n%s\nsays %q and exits with %d", out, want, err, code)
	}
}

func TestStatusWithNothingToShow(t *testing.T) {
	r := replay(t, answers{"GET status": says(`{"tier":"unknown","tier_reason":"no supply can be read","policy":"auto"}`)})
	out, _, code := run(t, r.socket, nil, "status")
	for _, want := range []string{"tier     unknown, no supply can be read\n", "supply   not known\n", "active   no backend\n"} {
		if !strings.Contains(out, want) || code != 0 {
			t.Errorf("it writes %q without %q, and exits with %d", out, want, code)
		}
	}
}

func TestStatusSaysOnceThatThereIsNoBackend(t *testing.T) {
	r := replay(t, answers{"GET status": says(`{"tier":"mains","active_reason":"no backend: a: connection refused"}`)})
	if out, _, _ := run(t, r.socket, nil, "status"); !strings.Contains(out, "active   no backend: a: connection refused\n") || strings.Count(out, "backend") != 1 {
		t.Errorf("it writes\n%s", out)
	}
}

func TestStatusForBars(t *testing.T) {
	t.Setenv("TZ", "UTC")
	r := replay(t, answers{"GET status": says(statusJSON("61.6", `,"draw_watts":6.42`))})
	out, _, code := run(t, r.socket, nil, "status", "--json")
	var got struct {
		wire.Status
		Text, Alt, Class, Tooltip string
		Percentage                int
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || strings.Count(out, "\n") != 1 {
		t.Fatalf("%q: %v, exits with %d", out, err, code)
	}
	if got.Text != "igpu · 6.4 W · 62 %" || got.Alt != "battery" || got.Class != "battery" || got.Percentage != 62 {
		t.Errorf("got %+v", got)
	}
	if !strings.HasPrefix(got.Tooltip, "tier: battery, discharging, since") || !strings.Contains(got.Tooltip, "\nactive: ollama-igpu, least cost &amp; &lt;fast&gt;\n") {
		t.Errorf("the tooltip is %q", got.Tooltip)
	}
	if got.TierReason != "discharging" || got.Supply.ChargePercent != 61.6 || len(got.Backends) != 2 || got.Backends[1].Metrics.PowerQuality != "unknown" {
		t.Errorf("the status is %+v", got.Status)
	}
}

func TestFollowWritesALineForEachChange(t *testing.T) {
	goOn := make(chan struct{})
	r := replay(t, answers{"GET status": func(w http.ResponseWriter, req *http.Request) {
		write(w, statusJSON("62", ""))
		until(goOn, req)
		write(w, statusJSON("62", `,"draw_watts":9`)) // It is not shown.
		write(w, statusJSON("61", held+`,"running":2,"policy":"saver"`))
	}})
	p := start(t, r.socket, nil, "status", "--follow")
	p.out.await(t, "  tier battery, discharging; ollama-igpu, least cost & <fast>; 62 %\n")
	close(goOn)
	if code := p.exit(t); code != 3 || p.err.String() != "joulemux: the daemon has ended\n" {
		t.Errorf("it exits with %d and says %q", code, p.err)
	}
	if lines := strings.Split(p.out.String(), "\n"); len(lines) != 3 || !strings.HasSuffix(lines[1], "; 61 %; policy saver; 1 hold; 2 jobs") {
		t.Errorf("it writes %q", lines)
	}
	if asked := r.requests()[0]; asked != "GET /joulemux/v1/status?watch " {
		t.Errorf("it asked %q", asked)
	}
}

func TestFollowInJSON(t *testing.T) {
	h, begun, gone := signalled(statusJSON("62", "") + statusJSON("61", ""))
	r := replay(t, answers{"GET status": h})
	p := start(t, r.socket, nil, "status", "--follow", "--json")
	within(t, begun)
	p.out.await(t, `"percentage":61}`+"\n")
	p.interrupt(t)
	within(t, gone)
	if code := p.exit(t); code != 130 {
		t.Errorf("it exits with %d", code)
	}
	for line := range strings.Lines(p.out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q is no JSON", line)
		}
	}
}

func TestListings(t *testing.T) {
	const modelsJSON = `{"models":[{"name":"llama3.2:1b","names":["llama3.2:1b","llama3.2:latest"],"digest":"baf6","size_bytes":1321098329,"parameters":"1.2B","quantisation":"Q8_0",` +
		`"max_context":131072,"abilities":["completion","tools"],"backends":["ollama-cpu","ollama-igpu"],"resident":["ollama-igpu"],` +
		`"places":[{"backend":"ollama-cpu","name":"llama3.2:1b","resident":false},{"backend":"ollama-igpu","name":"llama3.2:latest","resident":true}],` +
		`"fits":[{"backend":"ollama-cpu","verdict":"fits","reason":""},{"backend":"ollama-igpu","verdict":"fits","reason":""},{"backend":"ollama-npu","verdict":"does not fit","reason":""}]},` +
		`{"name":"tiny","names":["tiny"],"digest":"01","size_bytes":524288,"backends":["ollama-cpu"],"resident":[],"places":[{"backend":"ollama-cpu","name":"tiny","resident":false}],` +
		`"fits":[{"backend":"ollama-cpu","verdict":"unknown","reason":""}]}]}` + "\n"
	r := replay(t, answers{
		"GET backends": says(`{"backends":` + backendsJSON + "}\n"),
		"GET models":   says(modelsJSON),
		"GET policy":   says(`{"policy":"auto"}` + "\n"),
		"PUT policy":   says(`{"policy":"saver"}` + "\n"),
	})
	for _, c := range []struct{ args, want string }{
		{"models", "MODEL                         SIZE    PARAMETERS  QUANT  CONTEXT  ABILITIES          BACKENDS                 LOADED ON    FITS\n" +
			"llama3.2:1b, llama3.2:latest  1.3 GB  1.2B        Q8_0   131072   completion, tools  ollama-cpu, ollama-igpu  ollama-igpu  ollama-cpu, ollama-igpu; not ollama-npu\n" +
			"tiny                          524 kB  -           -      -        -                  ollama-cpu               -            not known\n"},
		{"models --json", modelsJSON},
		{"backends --json", `{"backends":` + backendsJSON + "}\n"},
		{"policy", "auto\n"},
		{"policy --json", `{"policy":"auto"}` + "\n"},
		{"policy saver", "saver\n"},
	} {
		if out, err, code := run(t, r.socket, nil, strings.Fields(c.args)...); out != c.want || code != 0 {
			t.Errorf("%s writes\n%s\nand not\n%s\nsays %q and exits with %d", c.args, out, c.want, err, code)
		}
	}
	all := r.requests()
	if last := all[len(all)-1]; last != `PUT /joulemux/v1/policy {"policy":"saver"}` {
		t.Errorf("policy saver asks %q", last)
	}
	if out, _, _ := run(t, r.socket, nil, "backends"); strings.Count(out, "\n") != 3 || !strings.HasPrefix(out, "BACKEND ") {
		t.Errorf("backends writes %q", out)
	}
}

func TestEmptyLists(t *testing.T) {
	r := replay(t, answers{
		"GET models":    says(`{"models":[]}`),
		"GET backends":  says(`{"backends":[]}`),
		"GET pipelines": says(`{"pipelines":[]}`),
	})
	for args, want := range map[string]string{
		"models":        "no backend has a model\n",
		"backends":      "there is no backend; \"joulemux status\" says why\n",
		"pipeline list": "no pipelines\n",
	} {
		if out, _, code := run(t, r.socket, nil, strings.Fields(args)...); out != want || code != 0 {
			t.Errorf("%s writes %q, exits with %d", args, out, code)
		}
	}
}
