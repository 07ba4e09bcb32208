package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/document"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// What a pipeline may have at most.
const (
	longestFile = 256 << 10 // bytes
	mostStages  = 32
	mostVars    = 64
	mostWays    = 32     // on from a stage
	longestName = 64     // bytes
	longestRule = 1000   // bytes of a regular expression
	mostRules   = 20_000 // steps of all regular expressions together, which take some 40 bytes each
)

// Parse reads the pipeline of that name. The error is of type document.Faults, and
// holds all of them at once.
func Parse(name string, file []byte) (*Pipeline, error) {
	if len(file) > longestFile {
		return nil, document.Faults{{Text: fmt.Sprintf("it is longer than %d bytes", longestFile)}}
	}
	p := &parser{Pipeline: &Pipeline{Name: name, Vars: make(map[string]*string)}, index: make(map[string]int), fields: make(map[string][]string)}
	read := false
	err := document.Read(file, func(s section) {
		read = true
		if s.Plain() {
			p.file(s)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case !read || len(p.Stages) == 0:
		return nil, document.Faults{{Text: "a pipeline needs stages"}}
	}
	p.Pipeline.fields = p.fields
	return p.Pipeline, nil
}

// What the file is read with.
type (
	section = document.Section
	keys    = document.Fields
)

// parser fills in a pipeline.
type parser struct {
	*Pipeline
	// index is which stage has an id.
	index map[string]int
	// found are the stages' sections that can be understood only once all stages
	// are known.
	found []found
	// fields are the members of answers that are referred to, by stage.
	fields map[string][]string
	// asked are the stages whose answers conditions ask for by name.
	asked []question
	// rules is how many steps the regular expressions have so far.
	rules int
}

// question is where the stage by asks for the answer of another.
type question struct {
	by, of int
	at     section
}

// found is what there is of a stage.
type found struct{ all, model, prompt, system, next, escalate, other section }

func (p *parser) known(id string) bool {
	_, ok := p.index[id]
	return ok
}

// suggestion is what to add where a name is none of some.
func suggestion(written string, names iter.Seq[string]) string {
	for range names {
		return document.Suggestion(written, names)
	}
	return "; there are none"
}

func (p *parser) file(s section) {
	s.Mapping(keys{
		"description":     func(s section) { s.Text(&p.Description) },
		"vars":            p.vars,
		"max_power_watts": func(s section) { watts := 0.0; s.Number(&watts, 0, 10_000); p.MaxPower = power.Watts(watts) },
		"deadline_ms":     func(s section) { ms := 0; s.Integer(&ms, 0, 1<<31-1); p.Deadline = milliseconds(ms) },
		"stages":          p.stages,
	})
	switch {
	case !s.IsMapping():
		return
	case len(p.Stages) == 0:
		s.Within("stages").Fault("a pipeline needs stages")
		return
	}
	for i := range p.Stages {
		p.ways(i)
	}
	if before, sure := p.way(); sure != nil {
		p.texts(before, sure)
	}
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// isName reports whether templates can name a thing so.
func isName(name string) bool { return names.MatchString(name) && len(name) <= longestName }

var names = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (p *parser) vars(s section) {
	s.Pairs(func(name string, s section) {
		switch {
		case len(p.Vars) >= mostVars:
			s.Fault("there are more than %d", mostVars)
		case !isName(name):
			s.Fault("a variable's name has letters, digits and _, and at most %d", longestName)
		case strings.EqualFold(name, "input"):
			s.Fault("that is what .Input is called elsewhere; take another name")
		case s.Empty():
			p.Vars[name] = nil
		default:
			p.Vars[name] = new(string)
			s.Text(p.Vars[name])
		}
	})
}

func (p *parser) stages(s section) {
	s.List(func(s section) {
		if len(p.Stages) == mostStages {
			s.Fault("there are more than %d stages", mostStages)
		}
		if len(p.Stages) < mostStages {
			p.stage(s)
		}
	})
}

// options are those of a job that a stage takes as they are.
var options = strings.Fields("model target class preference latency_critical prefer_power_efficiency cache_enabled " +
	"max_latency_ms deadline_ms max_power_watts max_tokens temperature top_p top_k context_length stop")

// changed are those of them that an escalation may change.
var changed = strings.Fields("model target latency_critical prefer_power_efficiency max_latency_ms max_power_watts max_tokens")

// set adds the keys that set options of a job. The section of its model is kept.
func set(model *section, into keys, options []string, j *job.Job) keys {
	for _, name := range options {
		into[name] = func(s section) {
			if name == "model" {
				*model = s
			}
			value, ok := s.Value()
			if !ok {
				return
			}
			var e *job.Error
			if err := j.Set(name, value); errors.As(err, &e) {
				s.Fault("%s", e.Detail)
			}
			if t := j.Content.Sampling.Temperature; name == "temperature" && t != nil && *t < 0 {
				s.Fault("want a number from 0 on, got %v", *t)
			}
			if share := j.Content.Sampling.TopP; name == "top_p" && share != nil && (*share < 0 || *share > 1) {
				s.Fault("want a number from 0 to 1, got %v", *share)
			}
		}
	}
	return into
}

func (p *parser) stage(s section) {
	var stage Stage
	f := found{all: s}
	s.Mapping(set(&f.model, keys{
		"id":       func(s section) { s.Text(&stage.ID) },
		"prompt":   func(s section) { f.prompt = s },
		"system":   func(s section) { f.system = s },
		"think":    func(s section) { stage.think = new(bool); s.Flag(stage.think) },
		"format":   func(s section) { format(s, &stage) },
		"tiers":    func(s section) { tiers(s, &stage.Tiers) },
		"next":     func(s section) { f.next = s },
		"escalate": func(s section) { f.escalate = s },
	}, options, &stage.options))
	first, twice := p.index[stage.ID]
	switch {
	case !s.IsMapping():
		return
	case stage.ID == "":
		s.Within("id").Fault("a stage needs an id")
	case !isName(stage.ID) || stage.ID == "end":
		s.Within("id").Fault("a stage's id has letters, digits and _, and at most %d, and is not end", longestName)
	case twice:
		s.Within("id").Fault("%q is taken by the stage on line %d", stage.ID, p.found[first].all.Line())
	default:
		p.index[stage.ID] = len(p.Stages)
	}
	if !f.prompt.There() {
		s.Within("prompt").Fault("a stage needs a prompt")
	}
	if f.escalate.There() {
		stage.Escalation = p.escalation(f.escalate, &f.other, stage.options)
	}
	p.Stages, p.found = append(p.Stages, stage), append(p.found, f)
}

// format reads what the answer has to look like, and keeps what is known of its
// members.
func format(s section, stage *Stage) {
	v, ok := s.Value()
	if !ok {
		return
	}
	if v != "json" && !s.IsMapping() {
		s.Fault("want json, or a JSON schema")
		return
	}
	text, err := json.Marshal(v)
	if err != nil {
		s.Fault("this is no JSON: %v", err)
		return
	}
	var schema struct {
		Properties map[string]json.RawMessage
		Required   []string
	}
	_ = json.Unmarshal(text, &schema) // the server reads the schema; we only look for these
	stage.format, stage.members, stage.required = text, slices.Sorted(maps.Keys(schema.Properties)), schema.Required
}

func tiers(s section, to *[]power.Tier) {
	s.List(func(s section) {
		var name string
		s.Text(&name)
		t, err := power.ParseTier(name)
		switch {
		case err != nil:
			s.Fault("%v", err)
		case slices.Contains(*to, t):
			s.Fault("%v is there twice", t)
		default:
			*to = append(*to, t)
		}
	})
	if len(*to) == 0 {
		s.Fault("on no tier at all it would never run")
	}
}

// escalation reads an escalation of a job with those options.
func (p *parser) escalation(s section, model *section, of job.Job) *Escalation {
	e := &Escalation{options: of}
	e.options.Target = "" // a larger model mostly runs elsewhere
	s.Mapping(set(model, keys{
		"tiers":            func(s section) { tiers(s, &e.tiers) },
		"confidence_below": func(s section) { s.Number(&e.below, 0, 1) },
		"check":            func(s section) { e.check = p.readTest(s, make(keys), deepest) },
	}, changed, &e.options))
	if most := of.MaxPower; most > 0 && (e.options.MaxPower == 0 || e.options.MaxPower > most) {
		e.options.MaxPower = most
	}
	switch {
	case !s.IsMapping():
	case e.options.Model == of.Model && e.options.Target == of.Target:
		s.Fault("name another model or another target: the same would only answer again")
	case e.below == 0 && e.check == nil:
		s.Fault("say when: confidence_below, a check, or both")
	}
	return e
}

// deepest is how many tests may be one within another.
const deepest = 4

// readTest reads a test, beside other keys.
func (p *parser) readTest(s section, others keys, deep int) *test {
	t := new(test)
	there := 0
	add := func(name string, read func(section)) {
		others[name] = func(s section) { there++; read(s) }
	}
	add("equals", func(s section) { t.equals = new(string); s.Text(t.equals) })
	add("contains", func(s section) { t.contains = new(string); s.Text(t.contains) })
	add("one_of", func(s section) {
		t.oneOf = []string{}
		s.List(func(s section) {
			var word string
			s.Text(&word)
			t.oneOf = append(t.oneOf, word)
		})
	})
	add("matches", func(s section) { t.matches = p.expression(s) })
	add("above", func(s section) { t.above = new(float64); s.Number(t.above, -1e15, 1e15) })
	add("below", func(s section) { t.below = new(float64); s.Number(t.below, -1e15, 1e15) })
	add("min_words", func(s section) { t.minWords = new(int); s.Integer(t.minWords, 0, 1e6) })
	add("max_words", func(s section) { t.maxWords = new(int); s.Integer(t.maxWords, 0, 1e6) })
	add("json", func(s section) {
		if s.Flag(&t.json); !t.json {
			s.Fault("want true; what must not be JSON is not: {json: true}")
		}
	})
	add("not", func(s section) {
		if deep == 0 {
			s.Fault("not is within not %d times", deepest)
			return
		}
		t.not = p.readTest(s, make(keys), deep-1)
	})
	s.Mapping(others)
	if s.IsMapping() && there == 0 {
		s.Fault("there is nothing that has to hold, such as contains or matches")
	}
	return t
}

// expression reads a regular expression. One with a fault matches nothing.
func (p *parser) expression(s section) *regexp.Regexp {
	var source string
	if s.Text(&source); len(source) > longestRule {
		s.Fault("it is longer than %d bytes", longestRule)
		return nil
	}
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		s.Fault("%v", err)
		return nil
	}
	// That is known before the memory is taken.
	if p.rules += steps(tree); p.rules > mostRules {
		s.Fault("with what is repeated written out, the regular expressions up to this one take more than %d steps", mostRules)
		return nil
	}
	e, err := regexp.Compile(source)
	if err != nil {
		s.Fault("%v", err)
	}
	return e
}

// steps returns about how much memory an expression takes, in steps of what it is
// compiled to: a thousand bytes can be repeated a thousand times. A set of
// characters is there once, however often it is repeated.
func steps(e *syntax.Regexp) int {
	n := 1 + len(e.Rune)
	if e.Op == syntax.OpCharClass {
		n = 1 + len(e.Rune)/10
	}
	for _, sub := range e.Sub {
		n += steps(sub)
	}
	if e.Op == syntax.OpRepeat {
		n *= max(e.Min, e.Max, 1)
	}
	return n
}

// ways reads where it goes on from a stage.
func (p *parser) ways(i int) {
	stage, s := &p.Stages[i], p.found[i].next
	below := branch{to: end}
	if i+1 < len(p.Stages) {
		below.to = i + 1
	}
	switch {
	case !s.There():
		stage.next = []branch{below}
	case s.IsList():
		p.branches(i, s)
	default:
		stage.next = []branch{{to: p.target(s)}}
	}
}

// branches reads the ways on of which the first is taken that is open.
func (p *parser) branches(i int, s section) {
	stage := &p.Stages[i]
	s.List(func(s section) {
		b := branch{to: end}
		named := false
		s.Mapping(keys{
			"when": func(s section) { b.when = p.condition(i, s) },
			"to":   func(s section) { named = true; b.to = p.target(s) },
		})
		switch {
		case !s.IsMapping():
			return
		case !named:
			s.Fault("say where to: a stage's id, or end")
		case len(stage.next) == mostWays:
			s.Fault("there are more than %d ways", mostWays)
			return
		case len(stage.next) > 0 && stage.next[len(stage.next)-1].when == nil:
			s.Fault("this is never reached: the one before has no condition")
		}
		stage.next = append(stage.next, b)
	})
	if n := len(stage.next); n == 0 || stage.next[n-1].when != nil {
		s.Fault("what if none of these holds? The last has to be without a condition, such as {to: end}")
		stage.next = append(stage.next, branch{to: end})
	}
}

// target reads the name of a stage to go to.
func (p *parser) target(s section) int {
	var id string
	s.Text(&id)
	if id == "end" || id == "" {
		return end
	}
	to, ok := p.index[id]
	if !ok {
		s.Fault("there is no stage %q%s", id, suggestion(id, maps.Keys(p.index)))
		return end
	}
	return to
}

func (p *parser) condition(i int, s section) *condition {
	c := &condition{stage: i}
	var field section
	c.test = *p.readTest(s, keys{
		"stage": func(s section) {
			if to := p.target(s); to != end {
				c.stage = to
			}
			p.asked = append(p.asked, question{i, c.stage, s})
		},
		"field": func(s section) { field = s; s.Text(&c.field) },
	}, deepest)
	if field.There() {
		p.field(field.Fault, p.Stages[c.stage].ID, c.field)
	}
	return c
}

// field notes that a member of a stage's answer is referred to, or that there is
// none.
func (p *parser) field(fault func(format string, args ...any), id, name string) {
	stage := &p.Stages[p.index[id]]
	switch {
	case stage.format == nil:
		fault("the stage %s has no format, and so its answer no members", id)
	case len(stage.members) > 0 && !slices.Contains(stage.members, name):
		fault("the format of the stage %s has no member %s%s", id, name, suggestion(name, slices.Values(stage.members)))
	case !slices.Contains(p.fields[id], name):
		p.fields[id] = append(p.fields[id], name)
	}
}

// texts reads the prompts and system texts.
func (p *parser) texts(before, sure []map[string]bool) {
	for i := range p.Stages {
		stage, s := &p.Stages[i], scope{p, before[i], sure[i]}
		if sure[i] == nil {
			continue // no way leads there, which is a fault already
		}
		read := func(at section) text {
			if !at.There() {
				return text{}
			}
			var source string
			at.Text(&source)
			return s.parse(at, source)
		}
		f := p.found[i]
		stage.prompt, stage.system = read(f.prompt), read(f.system)
		s = s.variables()
		stage.model = read(f.model)
		if e := stage.Escalation; e != nil {
			if e.model = stage.model; f.other.There() {
				e.model = read(f.other)
			}
		}
	}
}
