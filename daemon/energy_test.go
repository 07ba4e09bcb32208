package daemon_test

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/joulemux/joulemux/daemon/daemontest"
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

// unhurried is a server that takes a second for an answer, in ten pieces.
func unhurried(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/chat" {
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
		fmt.Fprintln(w, `{"model":"llama3.2:1b","message":{"role":"assistant","content":"word "},"done":false}`)
		_ = http.NewResponseController(w).Flush()
	}
	fmt.Fprintln(w, `{"model":"llama3.2:1b","message":{"role":"assistant","content":""},"done":true,"eval_count":10,"eval_duration":900000000}`)
}

func TestAnAnswerSaysWhatWasMeasured(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{
		Sys:    newDrawing(),
		Config: backends(map[string]string{"igpu": daemontest.Serve(t, http.HandlerFunc(unhurried))}),
	})
	lines := strings.Split(strings.TrimSpace(ask(t, d, "POST", "/api/chat", `{"model":"llama3.2:1b","messages":[{"role":"user","content":"Why?"}]}`).body), "\n")
	own := member(t, lines[len(lines)-1])
	// The idle draw is that of the pause between the start and the job, if that
	// was a second; else nothing is known of it.
	gross, _ := own["energy_gross_joules"].(float64)
	if own["energy_quality"] != "measured" || own["energy_scope"] != "package" || own["energy_source"] != "rapl" || gross < 19 || gross > 40 {
		t.Errorf("the answer says %v", own)
	}
	if joules, _ := own["energy_joules"].(float64); joules > gross || joules*10 != float64(int(joules*10+0.5)) {
		t.Errorf("%v J of %v, and not in tenths", own["energy_joules"], gross)
	}
	s := status(t, d)
	if len(s.Draws) != 1 || s.Draws[0].Domain != "package-0" || s.Draws[0].Watts < 19 || s.Draws[0].Watts > 21 {
		t.Errorf("the draws are %+v", s.Draws)
	}
}
