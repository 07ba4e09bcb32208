package pipeline_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/document"
	"github.com/joulemux/joulemux/daemon/pipeline"
)

// parse reads a pipeline that has to be in order.
func parse(t *testing.T, file string) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.Parse("test", []byte(file))
	if err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	return p
}

func TestTheExampleIsInOrder(t *testing.T) {
	text, err := os.ReadFile("pipeline.go")
	if err != nil {
		t.Fatal(err)
	}
	comment, _, _ := strings.Cut(string(text), "// Stages follow each other")
	var example strings.Builder
	for _, line := range regexp.MustCompile(`(?m)^//(\t.*)?$`).FindAllStringSubmatch(comment, -1) {
		example.WriteString(strings.TrimPrefix(line[1], "\t") + "\n")
	}
	p := parse(t, example.String())
	if len(p.Stages) != 3 || !p.NeedsInput || *p.Vars["language"] != "English" || p.Stages[0].Target() != "npu" || p.Stages[1].Escalation.Model() != "qwen2.5:7b" {
		t.Errorf("got %+v", p)
	}
}

// one is a pipeline with one stage, which has those keys too.
func one(keys string) string {
	return "stages:\n  - id: a\n    prompt: x\n" + keys
}

// two has a way round the first stage but one.
const two = `stages:
  - {id: a, prompt: x, next: [{when: {contains: y}, to: c}, {to: b}]}
  - {id: b, prompt: x}
  - id: c
    prompt: `

func TestFaultsAreToldByLine(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"", "a pipeline needs stages"},
		{"description: x", "line 1: stages: a pipeline needs stages"},
		{"- x", "line 1: want keys and values"},
		{"a: [", "not YAML"},
		{"stages: x", `line 1: stages: want a list, got "x"`},
		{one("    promt: y"), `line 4: stages[0].promt: no such key; did you mean "prompt"?`},
		{one("    max_tokens: -1"), "line 4: stages[0].max_tokens: want a number from 0 to 2147483647, got -1"},
		{one("    max_tokens: 1.5"), "line 4: stages[0].max_tokens: want a whole number"},
		{one("    max_power_watts: lots"), "line 4: stages[0].max_power_watts: want a number, got string"},
		{one("    temperature: -1"), "line 4: stages[0].temperature: want a number from 0 on"},
		{one("    top_p: 1.5"), "line 4: stages[0].top_p: want a number from 0 to 1"},
		{one("    class: urgent"), "is neither interactive nor background"},
		{one("    tiers: [mians]"), `line 4: stages[0].tiers[0]: "mians"`},
		{one("    tiers: []"), "line 4: stages[0].tiers: on no tier at all"},
		{one("    tiers: [low, low]"), "low is there twice"},
		{one("    format: text"), "line 4: stages[0].format: want json, or a JSON schema"},
		{one("    format: {a: .nan}"), "line 4: stages[0].format: this is no JSON"},
		{one("  - {id: a, prompt: x}"), `line 4: stages[1].id: "a" is taken by the stage on line 2`},
		{one("  - {id: end, prompt: x}"), "and is not end"},
		{one("  - {id: b-c, prompt: x}"), "line 4: stages[1].id: a stage's id has letters, digits and _"},
		{one("  - {prompt: x}"), "line 4: stages[1].id: a stage needs an id"},
		{one("  - {id: b}"), "line 4: stages[1].prompt: a stage needs a prompt"},
		{one("  - {id: b, prompt: x, next: a}"), "line 4: stages[1].next: there is no way back, and this is one: a, b, a"},
		{one("    next: a"), "there is no way back, and this is one: a, a"},
		{one("    next: second"), `line 4: stages[0].next: there is no stage "second"; there are a`},
		{one("    next: end\n  - {id: b, prompt: x}"), "line 5: stages[1]: no way leads to the stage b"},
		{one("    next: [{when: {contains: x}, to: end}]"), "line 4: stages[0].next: what if none of these holds?"},
		{one("    next: []"), "what if none of these holds?"},
		{one("    next: [{to: end}, {to: end}]"), "this is never reached"},
		{one("    next: [{when: {contains: x}}, {to: end}]"), "say where to"},
		{one("    next: [{when: {}, to: end}, {to: end}]"), "there is nothing that has to hold"},
		{one(`    next: [{when: {matches: "a("}, to: end}, {to: end}]`), "line 4: stages[0].next[0].when.matches: error parsing regexp: missing closing )"},
		{"stages: [{id: a, prompt: '" + strings.Repeat(`{{if eq (lower .Input) "x"}}{{end}}`, 50) + `{{.Input}}{{.Input}}'}]`, "line 1: stages[0].prompt: there are more than 100 functions, names and values in it"},
		{one(`    next: [{when: {matches: "(` + strings.Repeat("a", 900) + `){1000}"}, to: end}, {to: end}]`), "line 4: stages[0].next[0].when.matches: with what is repeated written out, the regular expressions up to this one take more than 20000 steps"},
		{one("    next:\n" + strings.Repeat(`      - {when: {matches: "[a-z]{0,800}"}, to: end}`+"\n", 28) + "      - {to: end}"), "line 29: stages[0].next[24].when.matches: with what is repeated"},
		{one(`    next: [{when: {matches: "` + strings.Repeat(`\\pL`, 300) + `"}, to: end}, {to: end}]`), "take more than 20000 steps"},
		{one(`    next: [{when: {matches: "` + strings.Repeat("a", 1001) + `"}, to: end}, {to: end}]`), "longer than 1000 bytes"},
		{one("    next: [{when: {stage: b, contains: x}, to: end}, {to: end}]"), `when.stage: there is no stage "b"`},
		{one("    next: [{when: {stage: b, contains: x}, to: end}, {to: b}]\n  - {id: b, prompt: x}"), "the stage b never runs before this one"},
		{one("    next: [{when: {field: f, contains: x}, to: end}, {to: end}]"), "the stage a has no format"},
		{one("    format: {properties: {lang: {}}}\n    next: [{when: {field: lng, contains: x}, to: end}, {to: end}]"), `has no member lng; did you mean "lang"?`},
		{one("    next: [{when: {not: {not: {not: {not: {not: {json: true}}}}}}, to: end}, {to: end}]"), "not is within not 4 times"},
		{one("    escalate: {model: m}"), "line 4: stages[0].escalate: say when"},
		{one("    escalate: {confidence_below: 0.5}"), "name another model or another target"},
		{one("    escalate: {model: m, confidence_below: 70}"), "escalate.confidence_below: want a number from 0 to 1, got 70"},
		{one("    escalate: {model: m, check: {}}"), "escalate.check: there is nothing that has to hold"},
		{one("    escalate: {model: m, temperature: 1}"), "escalate.temperature: no such key"},
		{"vars: {input: x}\n" + one(""), "line 1: vars.input: that is what .Input is called"},
		{"vars: {a-b: x}\n" + one(""), "line 1: vars.a-b: a variable's name has"},
		{"max_power_watts: -1\n" + one(""), "line 1: max_power_watts: want a number from 0 to 10000"},
		{"x: &a [1]\ny: *a\n" + one(""), "line 2: aliases are not understood here; write out what *a stands for"},
		{"a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nstages: [*b,*b,*b,*b,*b,*b,*b,*b]", "line 2: aliases are not understood here"},
		{"a: &a [*a]\n", "aliases"},
		{strings.Repeat("#", 256<<10+1), "it is longer than 262144 bytes"},
		{"stages:\n" + strings.Repeat("  - {id: a, prompt: x}\n", 33), "line 34: stages[32]: there are more than 32 stages"},

		{two + `"{{.Stages.b}}"`, "line 5: stages[2].prompt: the stage b may not have run before this one; ask whether it has: {{with .Stages.b}}"},
		{two + `"{{or .Stages.a .Stages.b}}"`, "the stage b may not have run"},
		{two + `"{{if or .Stages.a .Stages.b}}{{.Stages.b}}{{end}}"`, "the stage b may not have run"},
		{two + `"{{if .Stages.b}}x{{else}}{{.Stages.b}}{{end}}"`, "the stage b may not have run"},
		{two + `"{{.Stages.third}}"`, "there is no stage third; there are a, b, c"},
		{two + `"{{.Stages.c}}"`, "the stage c never runs before this one"},
		{two + `"{{.Fields.a.x}}"`, "the stage a has no format"},
		{two + "|\n      one\n      {{.Stages.a\n", "line 8: stages[2].prompt: unclosed action"},
		{two + "|\n      one\n      {{.Input}}\n      {{.Stages.b}}", "line 8: stages[2].prompt: the stage b may not have run"},
		{two + `"{{.Vars.x}}"`, "there is no variable x; there are none"},
		{two + `"{{.Inptu}}"`, ".Inptu is none of .Input, .Vars.NAME, .Stages.ID and .Fields.ID.NAME"},
		{two + `"{{.}}"`, "a dot alone says nothing here"},
		{two + `"{{.Stages}}"`, ".Stages is none of"},
		{two + `"{{$}}"`, "$ is none of"},
		{two + `"{{$x := .Input}}{{$x}}"`, "there are no variables here"},
		{two + `"{{range .Stages}}x{{end}}"`, "there are no loops and no other templates here"},
		{two + `"{{template \"x\"}}"`, "there are no loops and no other templates here"},
		{two + `"{{define \"x\"}}{{end}}"`, "templates cannot be defined here"},
		{two + `"{{printf \"%1000000000d\" 1}}"`, "there is no function printf here"},
		{two + `"{{clop 3 .Input}}"`, `there is no function clop here; did you mean "clip"?`},
		{two + `"{{clip .Input 3}}"`, "line 5: stages[2].prompt: "},
		{two + `"{{with .Stages.b}}{{.Input}}{{end}}"`, "within with, .Input is of what it is about; write $.Input"},
		{"stages:\n  - {id: a, prompt: x, tiers: [mains]}\n  - {id: b, prompt: \"{{.Stages.a}}\"}", "line 3: stages[1].prompt: the stage a may not have run"},
	} {
		_, err := pipeline.Parse("test", []byte(c.file))
		var faults document.Faults
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v\nwant %s\nof\n%.300s", err, c.want, c.file)
		}
	}
}

func TestTemplatesThatAskAreInOrder(t *testing.T) {
	for _, prompt := range []string{
		`{{with .Stages.b}}{{.}} {{$.Input}}{{else}}{{.Stages.a}}{{end}}`,
		`{{if .Stages.b}}{{.Stages.b}}{{end}}`,
		`{{if and .Stages.b .Input}}{{.Stages.b}}{{end}}`,
		`{{or .Stages.b .Stages.a}}`,
		`{{or .Stages.b .Input | clip 3 | lower}}`,
		`{{if eq .Stages.b "yes"}}x{{end}}`,
		`{{/* nothing */}}x`,
		`{{len .Input}}`,
	} {
		parse(t, two+fmt.Sprintf("%q", prompt))
	}
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	_, err := pipeline.Parse("test", []byte(one("    max_tokens: x\n    promt: y\n  - {id: b}")))
	var faults document.Faults
	if !errors.As(err, &faults) || len(faults) != 3 {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(one("    next: [{when: {matches: x, not: {json: true}}, to: end}, {to: b}]\n  - {id: b, prompt: '{{.Input}}', tiers: [low]}"))
	f.Add(two + `"{{with .Stages.b}}{{.}}{{end}}{{or .Stages.b .Input | clip 3}}"`)
	f.Add(one("    format: {type: object, properties: {a: {}}, required: [a]}\n    escalate: {model: m, confidence_below: 0.5, check: {json: true}}\n  - {id: b, prompt: '{{.Fields.a.a}}'}"))
	f.Add("a: &a [*a]")
	f.Fuzz(func(t *testing.T, file string) {
		p, err := pipeline.Parse("fuzz", []byte(file))
		if err != nil {
			if faults := document.Faults(nil); !errors.As(err, &faults) || len(faults) == 0 {
				t.Fatalf("the error is %T: %v", err, err)
			}
			return
		}
		// Whatever is in order runs, and every stage once at most.
		c := call("some input")
		for name := range p.Vars {
			c.Vars[name] = "x"
		}
		o, err := run(t.Context(), p, c, &script{says: map[string]said{}})
		seen := make(map[string]bool)
		for _, r := range o.Results {
			if seen[r.Stage] {
				t.Fatalf("the stage %s has run twice", r.Stage)
			}
			seen[r.Stage] = true
		}
		if len(seen) == 0 {
			t.Fatalf("nothing has run: %v", err)
		}
	})
}
