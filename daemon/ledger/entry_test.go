package ledger

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

func TestAnEntryHasNoPlaceForText(t *testing.T) {
	// Every string that an entry has is a name or an account of sensors. A new
	// one has to be added here, by somebody who has thought about it.
	names := map[string]bool{
		"ID": true, "Backend": true, "Model": true, "Hardware": true, "Client": true, "Kind": true, "Class": true, "Failed": true,
		"Cost.Quality": true, "Cost.Scope": true, "Cost.Source": true, "Price.Currency": true,
	}
	for _, path := range stringsOf(reflect.TypeFor[Entry](), "") {
		if !names[path] {
			t.Errorf("an entry can hold text in its %s", path)
		}
		delete(names, path)
	}
	for path := range names {
		t.Errorf("there is no %s", path)
	}
}

// stringsOf returns where a type can hold text. Times hold none.
func stringsOf(typ reflect.Type, prefix string) (paths []string) {
	for _, f := range reflect.VisibleFields(typ) {
		switch f.Type.Kind() {
		case reflect.String:
			paths = append(paths, prefix+f.Name)
		case reflect.Struct:
			if f.Type != reflect.TypeFor[time.Time]() {
				paths = append(paths, stringsOf(f.Type, prefix+f.Name+".")...)
			}
		case reflect.Bool, reflect.Int, reflect.Int64, reflect.Uint8, reflect.Float64:
		default:
			paths = append(paths, prefix+f.Name)
		}
	}
	return paths
}

func TestEveryStringOfAnEntryIsShort(t *testing.T) {
	prompt := strings.Repeat("Tell nobody: ä\x00\xff\n", 1000)
	e := Entry{
		ID: prompt, Backend: prompt, Model: prompt, Hardware: power.DeviceClass(prompt), Client: prompt,
		Kind: job.Kind(prompt), Class: job.Class(prompt), Failed: job.Code(prompt),
		Cost: power.Cost{Quality: power.Quality(prompt), Scope: prompt, Source: prompt}, Price: job.Money{Currency: prompt},
	}.normal(noon)
	v := reflect.ValueOf(e)
	for _, path := range stringsOf(v.Type(), "") {
		field := v
		for name := range strings.SplitSeq(path, ".") {
			field = field.FieldByName(name)
		}
		s := field.String()
		if len(s) > maxText || path != "Cost.Source" && len(s) > maxWord {
			t.Errorf("%s has %d bytes", path, len(s))
		}
		if !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\n") {
			t.Errorf("%s is no line of text: %q", path, s)
		}
	}
}

func TestClipCutsBetweenCharacters(t *testing.T) {
	tests := []struct{ in, want string }{
		{"short", "short"},
		{"just right", "just right"},
		{"longer than that", "longer tha"},
		{"123456789ä", "123456789"},
		{"a\tb\x7f\xffc", "a?b??c"},
	}
	for _, tt := range tests {
		if got := clip(tt.in, 10); got != tt.want {
			t.Errorf("clip(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestAnEntryIsKeptWithinItsBounds(t *testing.T) {
	e := but(func(e *Entry) {
		e.Arrived, e.Ended = time.Time{}, time.Unix(1<<40, 0)
		e.Tokens, e.PromptTokens = math.MinInt, math.MaxInt
		e.Load, e.Total = -1, math.MaxInt64
		e.Cost.Energy, e.Cost.Tail = -1, math.MaxInt64
		e.Cost.Uncertainty, e.Cost.Coverage, e.Cost.Shared = math.NaN(), math.Inf(1), -3
	}).normal(noon)
	for name, got := range map[string][2]any{
		"ended":       {e.Ended, noon},
		"arrived":     {e.Arrived, noon},
		"tokens":      {e.Tokens, 0},
		"prompt":      {e.PromptTokens, maxTokens},
		"load":        {e.Load, time.Duration(0)},
		"total":       {e.Total, maxDuration},
		"energy":      {e.Cost.Energy, power.Energy(0)},
		"tail":        {e.Cost.Tail, maxEnergy},
		"uncertainty": {e.Cost.Uncertainty, 0.0},
		"coverage":    {e.Cost.Coverage, 1.0},
		"shared":      {e.Cost.Shared, 0},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %v, want %v", name, got[0], got[1])
		}
	}
}

func TestWhatIsNotKnownHasNoValue(t *testing.T) {
	for _, q := range []power.Quality{power.Unknown, power.None, "", "guessed"} {
		c := but(func(e *Entry) { e.Cost.Quality = q }).normal(noon).Cost
		if c.Energy != 0 || c.Gross != 0 || c.Load != 0 || c.Tail != 0 || c.Known() {
			t.Errorf("a cost of quality %q became %+v", q, c)
		}
	}
}
