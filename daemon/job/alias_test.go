package job

import (
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/power"
)

func TestWordsOfOtherSystems(t *testing.T) {
	gpus := []power.DeviceClass{power.IntegratedGPU, power.DiscreteGPU, power.NVIDIA}
	for _, c := range []struct {
		key, word string
		want      Annotations
	}{
		{"preference", "DEFAULT", Annotations{}},
		{"preference", "MIN_OVERALL_POWER", Annotations{PreferPowerEfficiency: true}},
		{"preference", "min-overall-power", Annotations{PreferPowerEfficiency: true}},
		{"preference", "Low_Power", Annotations{PreferPowerEfficiency: true}},
		{"preference", "high-performance", Annotations{LatencyCritical: true}},
		{"preference", "THROUGHPUT", Annotations{Class: Background}},
		{"preference", "prefer-gpu", Annotations{Preferred: gpus}},
		{"target", "PREFER_NPU", Annotations{Preferred: []power.DeviceClass{power.NPU}}},
		{"target", "max-performance", Annotations{LatencyCritical: true}},
		{"target", "npu", Annotations{Target: "npu"}},
		{"target", "performance", Annotations{Target: "performance"}}, // as a backend may be called
		{"target", "PREFER_TPU", Annotations{Target: "PREFER_TPU"}},
		{"class", "reactive", Annotations{Class: Interactive}},
		{"class", "Proactive", Annotations{Class: Background}},
		{"class", "BACKGROUND", Annotations{Class: Background}},
	} {
		var j Job
		if err := j.Annotate(c.key, c.word); err != nil || !reflect.DeepEqual(j.Annotations, c.want) {
			t.Errorf("%s %s: %+v, %v; want %+v", c.key, c.word, j.Annotations, err, c.want)
		}
	}
}

func TestAClassThatIsNamedStands(t *testing.T) {
	var j Job
	err := errors.Join(j.Set("class", "interactive"), j.Set("preference", "throughput"))
	if err != nil || j.Class != Interactive {
		t.Errorf("the class is %s, %v", j.Class, err)
	}
}

func TestWordsOfNoSystem(t *testing.T) {
	for word, says := range map[string]string{
		"MIN_OVERAL_POWER": `"MIN_OVERAL_POWER" is no preference; did you mean "min_overall_power"?`,
		"ludicrous":        "there are balanced, cumulative_throughput",
	} {
		var j Job
		var e *Error
		err := j.Set("preference", word)
		if !errors.As(err, &e) || e.Code != Invalid || e.Field != "preference" || !strings.Contains(e.Detail, says) {
			t.Errorf("%s: %v, want it to say %q", word, err, says)
		}
	}
}

func TestPrefers(t *testing.T) {
	var j Job
	if err := j.Set("preference", "PREFER_GPU"); err != nil {
		t.Fatal(err)
	}
	if !j.Prefers(power.NVIDIA) || !j.Prefers(power.IntegratedGPU) || j.Prefers(power.CPU) || (&Annotations{}).Prefers(power.CPU) {
		t.Errorf("preferred are %v", j.Preferred)
	}
}

// TestEveryPreferenceIsDocumented reads the table in the README.
func TestEveryPreferenceIsDocumented(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "| preference | sets |\n|---|---|\n")
	rows, _, _ := strings.Cut(rest, "\n\n")
	var words []string
	for row := range strings.Lines(rows) {
		before, sets, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for _, word := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(before, -1) {
			words = append(words, spelling(word[1]))
			var j Job
			if err := j.Set("preference", word[1]); err != nil {
				t.Errorf("the README tells of %s: %v", word[1], err)
			}
			for key, set := range map[string]bool{
				"nothing": reflect.DeepEqual(j.Annotations, Annotations{}), "latency_critical": j.LatencyCritical,
				"prefer_power_efficiency": j.PreferPowerEfficiency, "class: background": j.Class == Background,
				"that device": len(j.Preferred) > 0,
			} {
				if strings.Contains(sets, key) != set {
					t.Errorf("%s sets %s: %v; the README says %s", word[1], key, set, sets)
				}
			}
		}
	}
	for word := range preferences {
		if !slices.Contains(words, word) {
			t.Errorf("the README does not tell of %s", word)
		}
	}
}

func TestCacheIsPermittedRefusedOrLeftOpen(t *testing.T) {
	for value, want := range map[any]Annotations{true: {CacheEnabled: true}, false: {CacheRefused: true}} {
		var j Job
		if err := j.Set("cache_enabled", value); err != nil || j.CacheEnabled != want.CacheEnabled || j.CacheRefused != want.CacheRefused {
			t.Errorf("%v sets %+v, %v", value, j.Annotations, err)
		}
	}
	var j Job
	if err := j.Set("cache_enabled", "yes"); err == nil || j.CacheEnabled || j.CacheRefused {
		t.Errorf("got %+v, %v", j.Annotations, err)
	}
}

func TestTargetNamesByIDClassAndAlias(t *testing.T) {
	c := Candidate{ID: "ollama-nvidia", Class: power.NVIDIA, Aliases: []string{"ollama-11436"}}
	for target, want := range map[string]bool{"ollama-nvidia": true, "nvidia": true, "dgpu": true, "ollama-11436": true, "igpu": false, "": false} {
		if c.Named(target) != want {
			t.Errorf("%q names it: %v", target, !want)
		}
	}
}
