package daemon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/dbus"
)

// drawing is the /sys of a machine whose processor draws 20 W from when it was
// made, by a counter that anybody may read.
type drawing struct {
	fstest.MapFS
	since time.Time
}

const zone = "class/powercap/intel-rapl:0"

func newDrawing() drawing {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text + "\n"), Mode: 0o444} }
	return drawing{fstest.MapFS{
		zone + "/name":                file("package-0"),
		zone + "/energy_uj":           file("0"),
		zone + "/max_energy_range_uj": file("262143328850"),
	}, time.Now()}
}

// Open implements fs.FS.
func (d drawing) Open(name string) (fs.File, error) {
	file, err := d.MapFS.Open(name)
	if err != nil || name != zone+"/energy_uj" {
		return file, err
	}
	return counter{file, d.since}, nil
}

// counter is the counter, made anew whenever it is read from the beginning.
type counter struct {
	fs.File
	since time.Time
}

func (c counter) text() *strings.Reader {
	return strings.NewReader(fmt.Sprintf("%d\n", 20*time.Since(c.since).Microseconds()))
}

// ReadAt implements io.ReaderAt.
func (c counter) ReadAt(p []byte, offset int64) (int, error) { return c.text().ReadAt(p, offset) }

// Read implements io.Reader, for one read.
func (c counter) Read(p []byte) (int, error) {
	n, _ := c.text().Read(p)
	return n, io.EOF
}

// secret is in every prompt and in every answer of this file.
const secret = "xyzzy-and-nobody-else"

// unhurried is a server that takes a second for an answer, in ten pieces.
func unhurried(w http.ResponseWriter, r *http.Request) {
	piece := map[string]string{
		"/api/chat": `"message":{"role":"assistant","content":"` + secret + ` "}`, "/api/generate": `"response":"` + secret + ` "`,
	}[r.URL.Path]
	if piece == "" {
		daemontest.CannedOllama().ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	for range 10 {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(w, "{\"model\":%q,%s,\"done\":false}\n", model, piece)
		_ = http.NewResponseController(w).Flush()
	}
	fmt.Fprintf(w, "{\"model\":%q,%s,\"done\":true,\"eval_count\":10,\"eval_duration\":900000000}\n", model, piece)
}

// conversation is a request for an answer in pieces.
const conversation = `{"model":"` + model + `","messages":[{"role":"user","content":"` + secret + `"}]}`

func TestJobsTeachWhereTheNextOnesGo(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{
		Sys:    newDrawing(),
		Config: backends(map[string]string{"igpu": daemontest.Serve(t, http.HandlerFunc(unhurried))}),
	})
	const asked, enough = `{"model":"llama3.2:1b","messages":[{"role":"user","content":"Why?"}]}`, 3
	for n := range enough + 3 {
		lines := strings.Split(strings.TrimSpace(ask(t, d, "POST", "/api/chat", asked).body), "\n")
		switch quality := member(t, lines[len(lines)-1])["estimate_quality"]; {
		case quality == "derived" && n >= enough:
			return
		case quality != "estimated" && n < enough:
			t.Fatalf("after %d jobs what is predicted is %v", n, quality)
		}
	}
	t.Error("nothing was learned from what jobs took")
}

func TestAnAnswerSaysWhatWasMeasured(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{
		Sys:    newDrawing(),
		Config: backends(map[string]string{"igpu": daemontest.Serve(t, http.HandlerFunc(unhurried))}),
	})
	began := time.Now()
	lines := strings.Split(strings.TrimSpace(ask(t, d, "POST", "/api/chat", conversation).body), "\n")
	most := 20*time.Since(began).Seconds() + 1
	own := member(t, lines[len(lines)-1])
	// The idle draw is that of the pause between the start and the job, if that
	// was a second; else nothing is known of it.
	gross, _ := own["energy_gross_joules"].(float64)
	if own["energy_quality"] != "measured" || own["energy_scope"] != "package" || own["energy_source"] != "rapl" || gross < 19 || gross > most {
		t.Errorf("the answer says %v", own)
	}
	if joules, _ := own["energy_joules"].(float64); joules > gross || joules*10 != float64(int(joules*10+0.5)) {
		t.Errorf("%v J of %v, and not in tenths", own["energy_joules"], gross)
	}
	s := status(t, d)
	if len(s.Draws) != 1 || s.Draws[0].Domain != "package-0" || s.Draws[0].Watts < 15 || s.Draws[0].Watts > 25 {
		t.Errorf("the draws are %+v", s.Draws)
	}
}

func TestTheLedgerKnowsWhoAskedAndNotForWhat(t *testing.T) {
	state := t.TempDir()
	o := daemontest.Options{
		State: state, Sys: newDrawing(),
		Config: "energy: {price_per_kwh: 0.32, currency: EUR}\n" +
			backends(map[string]string{"igpu": daemontest.Serve(t, http.HandlerFunc(unhurried))}),
	}
	d := daemontest.Start(t, o)
	first := ask(t, d, "POST", "/api/chat", conversation)
	askAsCurl(t, d, conversation)
	askWithBusctl(t, d)

	want := map[string]wire.EnergySum{ourName(t): {Jobs: 1, Tokens: 10}, "curl": {Jobs: 1, Tokens: 10}, "busctl": {Jobs: 1, Tokens: 10}}
	if before := byClient(t, d); !maps.Equal(before, want) {
		t.Errorf("the clients are %v, want %v", before, want)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	searchLedger(t, state, "curl", true)
	searchLedger(t, state, secret, false)

	d = daemontest.Start(t, o)
	if after := byClient(t, d); !maps.Equal(after, want) {
		t.Errorf("after a restart the clients are %v, want %v", after, want)
	}
	var told wire.EnergyJob
	decode(t, ask(t, d, "GET", "/joulemux/v1/energy/"+first.header.Get("X-Request-Id"), ""), &told)
	if len(told.Attempts) != 1 || told.Attempts[0].Quality != "measured" || told.Attempts[0].Tokens != 10 || told.Attempts[0].Client != ourName(t) {
		t.Errorf("the first job is %+v", told)
	}
}

// byClient returns the jobs and tokens of each client. All of them have to be
// measured.
func byClient(t *testing.T, d *daemontest.Daemon) map[string]wire.EnergySum {
	t.Helper()
	var e wire.Energy
	decode(t, ask(t, d, "GET", "/joulemux/v1/energy?by=client", ""), &e)
	if e.Tariff == nil || *e.Tariff != (wire.Tariff{PricePerKWh: 0.32, Currency: "EUR"}) || e.BatteryWh != nil || e.Trouble != "" {
		t.Errorf("it says %+v", e)
	}
	clients := map[string]wire.EnergySum{}
	for _, total := range e.Totals {
		// With nothing known of the idle draw all of it would be the job's: 20 J.
		if m := total.Measured; m.Jobs != total.Jobs || m.GrossJoules < 15*float64(m.Jobs) || m.GrossJoules > 60*float64(m.Jobs) {
			t.Errorf("%q took %+v", total.Key, total)
		}
		clients[total.Key] = wire.EnergySum{Jobs: total.Measured.Jobs, Tokens: total.Measured.Tokens}
	}
	return clients
}

func decode(t *testing.T, a answer, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), into); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d: %s: %v", a.status, a.body, err)
	}
}

// ourName is what a client of this process is called.
func ourName(t *testing.T) string {
	t.Helper()
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(name))
}

// askAsCurl asks by TCP, where a client is what it says.
func askAsCurl(t *testing.T, d *daemontest.Daemon, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+d.Addr+"/api/chat", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "curl/8.5.0")
	resp, err := briefly().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v", resp.Status, text, err)
	}
}

// askWithBusctl asks over D-Bus, with a program that nobody here wrote.
func askWithBusctl(t *testing.T, d *daemontest.Daemon) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), daemontest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "busctl", "--user", "--timeout=20", "call", dbus.InferenceName, "/io/github/joulemux/Inference1",
		dbus.InferenceName, "Generate", "sa{sv}", secret, "1", "model", "s", model)
	cmd.Env = append(os.Environ(), "DBUS_SESSION_BUS_ADDRESS="+d.Bus.Address())
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), secret) {
		t.Fatalf("busctl: %v: %s", err, out)
	}
}

// searchLedger looks for a text in the bytes of the ledger's files.
func searchLedger(t *testing.T, folder, text string, want bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, ledger.FileName+"*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no ledger: %v", err)
	}
	found := false
	for _, file := range files {
		bytes, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found = found || strings.Contains(string(bytes), text)
	}
	if found != want {
		t.Errorf("that %q is in %v: %t, want %t", text, files, found, want)
	}
}
