package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// simulatedRun runs joulemux simulate, which asks no daemon.
func simulatedRun(t *testing.T, args ...string) (out, err string, code int) {
	t.Helper()
	return run(t, "/nowhere", nil, append([]string{"simulate"}, args...)...)
}

func fileOf(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// small is a machine on which figures can be reckoned in the head: it writes
// ten tokens a second at one watt.
const small = `{"name":"small","devices":[{"id":"cpu","class":"cpu","prefill_tokens_per_second":1000,"decode_tokens_per_second":10,"decode_watts":1,"load_seconds":1,"load_watts":2}]}`

const twoRequests = "time,prompt_tokens,output_tokens,class\n0,1000,20,interactive\n60,1000,20,background\n"

func TestSimulateForPeople(t *testing.T) {
	machine, trace := fileOf(t, "small.json", small), fileOf(t, "day.csv", twoRequests)
	out, err, code := simulatedRun(t, "--machine", machine, "--trace", trace, "--policy", "ollama,break-even")
	want := "small: 2 jobs of " + trace + `, line power never
POLICY      E/BOUND  P10-P90    P95   MISSED  PUT OFF  HOLD  CHAT       COMPLETION  BACKGROUND  OF OLLAMA  EMPTY
ollama      1.50     1.50-1.50  1.50  0.0 %   0.0 %    0 %   2.0/2.0 s  -           1.0/1.0 s   100 %      0
break-even  1.50     1.50-1.50  1.50  0.0 %   0.0 %    0 %   2.0/2.0 s  -           1.0/1.0 s   100 %      0
`
	if out != want || err != "" || code != 0 {
		t.Errorf("it writes\n%s\nand not\n%s\nsays %q and exits with %d", out, want, err, code)
	}
}

func TestSimulateForPrograms(t *testing.T) {
	out, _, code := simulatedRun(t, "--json", "--machine", fileOf(t, "small.json", small), "--trace", fileOf(t, "day.csv", twoRequests), "--policy", "watts")
	var got struct {
		Machine, Policy string
		Jobs            int
		Ratio           struct{ Median float64 } `json:"energy_over_bound"`
		Joules          map[string]struct{ Decode, Load float64 }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 {
		t.Fatalf("%v, exit code %d: %s", err, code, out)
	}
	if got.Machine != "small" || got.Policy != "watts" || got.Jobs != 2 || got.Ratio.Median != 1.5 || got.Joules["cpu"].Decode != 4 || got.Joules["cpu"].Load != 2 {
		t.Errorf("it writes %s", out)
	}
}

func TestSimulateIsTheSameEachTime(t *testing.T) {
	for _, args := range []string{
		"--seeds 3 --hours 2 --line flips --charge 0", "--seeds 2 --hours 1 --sensitivity --machine hybrid",
		"--seeds 2 --hours 1 --random 3", "--seeds 1 --random 2 --json",
	} {
		once, err, code := simulatedRun(t, strings.Fields(args)...)
		again, _, _ := simulatedRun(t, strings.Fields(args)...)
		if once != again || once == "" || err != "" || code != 0 {
			t.Errorf("simulate %s: exit code %d, %q, %s\n%s", args, code, err, once, again)
		}
	}
}

func TestSimulateDraws(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plot.svg")
	if _, err, code := simulatedRun(t, "--seeds", "1", "--hours", "1", "--machine", "hybrid", "--plot", path); code != 0 {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := xml.NewDecoder(f)
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestSimulateShowsAMachineToBeginWith(t *testing.T) {
	out, _, _ := simulatedRun(t, "--machine", "thinkpad", "--show")
	again, err, code := simulatedRun(t, "--machine", fileOf(t, "mine.json", out), "--seeds", "1", "--hours", "1")
	if !strings.HasPrefix(again, "thinkpad: ") || code != 0 {
		t.Errorf("its own file: %s%s", again, err)
	}
}

func TestSimulateSaysWhatIsWrong(t *testing.T) {
	for args, says := range map[string]string{
		"--machine toaster":        `"toaster" is no file, and none of hybrid, strix, thinkpad`,
		"--machine toaster --show": `no machine is called "toaster"`,
		"--policy best":            `there is no "best"`,
		"--line sometimes":         "is none of never, flips, always",
		"--seeds 0":                "--seeds",
		"--hours NaN":              "--hours",
		"--charge 101":             "--charge",
		"--trace /nowhere":         "no such file",
		"--machine " + fileOf(t, "bad.json", `{"name":"bad"}`):                                 "devices: there are 0",
		"--trace " + fileOf(t, "bad.csv", "time,prompt_tokens,output_tokens,class\n1,2,3,x\n"): "line 2: class",
		"--trace " + fileOf(t, "none.csv", "time,prompt_tokens,output_tokens,class\n"):         "there are no requests",
		"--plot /nowhere/plot.svg --seeds 1":                                                   "--plot",
		"now":                                                                                  "unknown command",
	} {
		if _, err, code := simulatedRun(t, strings.Fields(args)...); code != 2 || !strings.Contains(err, says) {
			t.Errorf("simulate %s exits with %d and says %q, want %q", args, code, err, says)
		}
	}
}
