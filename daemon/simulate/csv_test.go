package simulate_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/simulate"
)

const header = "time,prompt_tokens,output_tokens,class\n"

func TestReadCSV(t *testing.T) {
	got, err := simulate.ReadCSV(strings.NewReader(header + "0,12,34,interactive\n1.5, 2000, 9, completion\n1.5,1,0,background\n"))
	want := []simulate.Request{
		{At: 0, Prompt: 12, Output: 34, Class: simulate.Interactive, Client: "trace"},
		{At: 1500 * time.Millisecond, Prompt: 2000, Output: 9, Class: simulate.Completion, Client: "trace"},
		{At: 1500 * time.Millisecond, Prompt: 1, Output: 0, Class: simulate.Background, Client: "trace"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestReadCSVNamesLineAndColumn(t *testing.T) {
	for _, c := range []struct {
		text, column, says string
		line               int
	}{
		{"", "", "want time,prompt_tokens", 1},
		{"time,prompt,output,class\n", "", "want time,prompt_tokens", 1},
		{header + "1,2,3,background\n1,2,3\n", "", "wrong number of fields", 3},
		{header + "soon,2,3,background\n", "time", `got "soon"`, 2},
		{header + "NaN,2,3,background\n", "time", `got "NaN"`, 2},
		{header + "1e300,2,3,background\n", "time", "want seconds", 2},
		{header + "1,-2,3,background\n", "prompt_tokens", "want a number from 0", 2},
		{header + "\n\n1,2,3.5,background\n", "output_tokens", `got "3.5"`, 4},
		{header + "1,2,3,urgent\n", "class", `got "urgent"`, 2},
		{header + "2,2,3,background\n1,2,3,background\n", "time", "before", 3},
		{header + "1,2,3,\"background\n", "", "quote", 2},
	} {
		_, err := simulate.ReadCSV(strings.NewReader(c.text))
		var e *simulate.LineError
		if !errors.As(err, &e) || e.Line != c.line || e.Column != c.column || !strings.Contains(e.Detail, c.says) {
			t.Errorf("%q: %v; want line %d, column %q, saying %q", c.text, err, c.line, c.column, c.says)
		}
	}
}

// FuzzReadCSV holds a trace that is taken to what the engine relies on.
func FuzzReadCSV(f *testing.F) {
	f.Add(header + "0,12,34,interactive\n1.5,2000,9,completion\n")
	f.Add(header + "0,12,34,\"interactive\"\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := simulate.ReadCSV(strings.NewReader(text))
		if err != nil {
			var e *simulate.LineError
			if !errors.As(err, &e) || e.Line < 1 {
				t.Fatalf("%q: %v names no line", text, err)
			}
			return
		}
		var last time.Duration
		for _, r := range list {
			if r.At < last || r.Prompt < 0 || r.Output < 0 {
				t.Fatalf("%q: took %+v after %v", text, r, last)
			}
			last = r.At
		}
	})
}
