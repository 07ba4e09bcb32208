package job

import (
	"maps"
	"slices"
	"strings"

	"github.com/joulemux/joulemux/power"
)

// preferences are the words by which other systems ask for speed, thrift or a
// device, in lower case and with '_', with what each sets: ONNX Runtime's and
// Windows ML's device policies, WebNN's power preference, the power profiles of
// the desktop, NNAPI's execution preferences and OpenVINO's performance hints.
//
// They are hints there, and are so here: none rules out a backend.
var preferences = map[string]func(*Annotations){
	"default":  func(*Annotations) {},
	"balanced": func(*Annotations) {},

	"max_performance":           fastest,
	"high_performance":          fastest,
	"performance":               fastest,
	"prefer_fast_single_answer": fastest,
	"latency":                   fastest,

	"min_overall_power": thriftiest,
	"max_efficiency":    thriftiest,
	"low_power":         thriftiest,
	"prefer_low_power":  thriftiest,
	"power_saver":       thriftiest,

	"prefer_sustained_speed": nobodyWaits,
	"throughput":             nobodyWaits,
	"cumulative_throughput":  nobodyWaits,

	"prefer_npu": on(power.NPU),
	"prefer_cpu": on(power.CPU),
	"prefer_gpu": on(power.IntegratedGPU, power.DiscreteGPU, power.NVIDIA),
}

func fastest(a *Annotations)    { a.LatencyCritical = true }
func thriftiest(a *Annotations) { a.PreferPowerEfficiency = true }

// nobodyWaits is asked for by who wants much done rather than one thing soon. A
// class that the client names stands.
func nobodyWaits(a *Annotations) {
	if a.Class == "" {
		a.Class = Background
	}
}

func on(classes ...power.DeviceClass) func(*Annotations) {
	return func(a *Annotations) { a.Preferred = classes }
}

// spelling returns a word in the one spelling in which it is looked up.
func spelling(word string) string { return strings.ReplaceAll(strings.ToLower(word), "-", "_") }

// preference sets what a word of another system means.
func preference(v any, to *Annotations) string {
	var word string
	if detail := text(v, &word); detail != "" {
		return detail
	}
	set, ok := preferences[spelling(word)]
	if !ok {
		return "\"" + short(word) + "\" is no preference" + hint(spelling(word), slices.Collect(maps.Keys(preferences)))
	}
	set(to)
	return ""
}

// target takes the name of a backend or of a device class. Who writes there what
// elsewhere is a policy for choosing a device means just that, and no backend.
func target(v any, to *Annotations) string {
	var word string
	if detail := text(v, &word); detail != "" {
		return detail
	}
	name := spelling(word)
	policy := strings.HasPrefix(name, "prefer_") || strings.HasPrefix(name, "max_") || strings.HasPrefix(name, "min_")
	if _, known := preferences[name]; known && policy {
		return preference(word, to)
	}
	to.Target = word
	return ""
}

// classes are the words for the classes, ours and those of Agent.xpu.
var classes = map[string]Class{
	"interactive": Interactive, "reactive": Interactive,
	"background": Background, "proactive": Background,
}

// Prefers reports whether the client would rather have the job on that device.
func (a *Annotations) Prefers(c power.DeviceClass) bool { return slices.Contains(a.Preferred, c) }

// AnyTarget reports whether the client leaves it open where the job runs.
func (a *Annotations) AnyTarget() bool { return a.Target == "" || a.Target == "auto" }
