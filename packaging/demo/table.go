package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// table prints what came of each question, as it comes.
type table struct{ w io.Writer }

const columns = "  %-11s %-31s %6s %9s  %s\n"

func (t table) header(model string) {
	fmt.Fprintf(t.w, `
One laptop's day: a real joulemuxd, upowerd, busctl and Ollama, with the model %s.
There is no NPU and no GPU here: four Ollamas on the CPU stand in for the devices, and each
row says so. Speeds are the CPU's. Until metering exists, costs are watts assumed of the
device x measured seconds: "estimated".

`, model)
	fmt.Fprintf(t.w, columns, "ASKED", "ANSWERED BY", "TOKENS", "TOKENS/S", "COST")
}

func (t table) hour(h hour) {
	fmt.Fprintf(t.w, "\n%s: %d %%, tier %s\n", h.what, h.charge, h.tier)
}

// row prints an outcome. Everything in it comes from the answer.
func (t table) row(what string, o outcome) {
	if o.error != nil {
		fmt.Fprintf(t.w, columns, what, "nobody (CPUs stand in)", "-", "-", "none")
		t.why(o.error.Text)
		return
	}
	where := fmt.Sprintf("%v (CPU stands in)", o.end["backend_used"])
	cost := "energy " + fmt.Sprint(o.end["energy_quality"])
	if joules, ok := o.end["energy_joules"].(float64); ok {
		cost = fmt.Sprintf("%.2f J %v", joules, o.end["energy_quality"])
	}
	rate, _ := o.end["tokens_per_second"].(float64)
	fmt.Fprintf(t.w, columns, what, where, fmt.Sprint(o.end["tokens_generated"]), fmt.Sprintf("%.0f", rate), cost)
	t.why(fmt.Sprintf("tier %v, %v: %v", o.end["tier"], o.end["tier_reason"], o.end["reason"]))
	t.why(excerpt(o.text))
}

// excerpt returns the beginning of an answer, fit for a terminal.
func excerpt(text string) string {
	const most = 60
	var b strings.Builder
	for _, r := range strings.TrimSpace(text) {
		if b.Len() >= most {
			b.WriteString("...")
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return `"` + b.String() + `"`
}

// why prints a reason below its row, in lines that fit.
func (t table) why(reason string) {
	const width, indent = 92, "              "
	line := ""
	for word := range strings.FieldsSeq(reason) {
		if line != "" && len(line)+1+len(word) > width {
			fmt.Fprintln(t.w, indent+line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	fmt.Fprintln(t.w, indent+line)
}

func (t table) footer() {
	fmt.Fprint(t.w, "\nThat was the day. make demo-serve keeps this laptop running, to play with.\n")
}
