package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/power"
)

// TestTheDay runs the demo as a newcomer does.
func TestTheDay(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts four Ollamas")
	}
	folder := t.TempDir()
	demo := filepath.Join(folder, "demo")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", demo, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	left := filepath.Join(folder, "tmp")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), demo)
	cmd.Dir = "../.." // as make runs it
	cmd.Env = append(os.Environ(), "TMPDIR="+left, "MODEL=")
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), log.String())
	}
	for _, tier := range power.Tiers()[1:] {
		if !strings.Contains(out.String(), "tier "+tier.String()+",") {
			t.Errorf("no answer on tier %v", tier)
		}
	}
	answered := regexp.MustCompile(`(?m)^  (an answer|quick|background|over D-Bus) .*$`).FindAllString(out.String(), -1)
	if len(answered) != 4*len(hours) {
		t.Errorf("%d rows, want %d", len(answered), 4*len(hours))
	}
	for _, row := range answered {
		if !strings.Contains(row, "stand in)") && !strings.Contains(row, "stands in)") {
			t.Errorf("this row does not say what a device is: %s", row)
		}
	}
	if n := strings.Count(out.String(), " J estimated"); n < 3*len(hours) {
		t.Errorf("%d rows say what they cost and how that is known, want %d", n, 3*len(hours))
	}
	if kept, _ := filepath.Glob(filepath.Join(left, "*")); len(kept) > 0 {
		t.Errorf("it leaves %q behind", kept)
	}
	if t.Failed() {
		t.Logf("%s%s", out.String(), log.String())
	}
}
