package pipeline

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template/parse"

	"github.com/joulemux/joulemux/daemon/document"
	"github.com/joulemux/joulemux/daemon/job"
)

// text is what the file says, as it stands or, if made is not nil, as that makes
// it.
type text struct {
	plain string
	made  *parse.Tree
}

const (
	// longestText is how much text a template may make, and be about, in bytes.
	longestText = 8 << 20
	// mostParts is how many functions, names and values a template may have. Each
	// may go through all of the text, some in 50 ms, and nobody can end that.
	mostParts = 100
)

// data is what templates refer to. Every name that they may ask for is in it.
type data struct {
	Input  string
	Vars   map[string]string
	Stages map[string]string
	Fields map[string]map[string]string
}

// allowed are the functions that templates can call.
var allowed = strings.Fields("and or not eq ne lt le gt ge len clip lower trim")

// clip keeps the first n characters of a text.
func clip(n int, text string) string {
	for at := range text {
		if n--; n < 0 {
			return text[:at]
		}
	}
	return text
}

// render returns the text.
func (t text) render(d data) (string, error) {
	if t.made == nil {
		return t.plain, nil
	}
	filled, err := d.fill(t.made)
	switch {
	case errors.Is(err, errLong):
		return "", job.Errorf(job.PromptTooLarge, "a text of more than %d bytes", longestText)
	case err != nil:
		return "", &job.Error{Code: job.Invalid, Detail: "a template cannot be filled in", Err: err}
	}
	return filled, nil
}

// bounded is a text that does not grow for ever.
type bounded struct{ strings.Builder }

var errLong = errors.New("the text is too long")

// Write adds to the text.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > longestText {
		return 0, errLong
	}
	return b.Builder.Write(p)
}

// scope is what a template may refer to.
type scope struct {
	p *parser
	// before are the stages that may have run, and sure those that have.
	before, sure map[string]bool
}

// variables is a scope in which there are no answers.
func (s scope) variables() scope { return scope{p: s.p} }

// parse parses a text, and says in at what is wrong with it.
func (s scope) parse(at document.Section, source string) text {
	if !strings.Contains(source, "{{") {
		return text{plain: source}
	}
	all, t := make(map[string]*parse.Tree), parse.New("")
	t.Mode = parse.SkipFuncCheck // which we know more words for
	_, err := t.Parse(source, "", "", all)
	switch {
	case err != nil:
		line, detail := place(err.Error())
		at.FaultAt(line, "%s", detail)
		return text{}
	case len(all) > 1:
		at.Fault("templates cannot be defined here")
		return text{}
	case parse.IsEmptyTree(t.Root):
		return text{}
	}
	w := &walk{scope: s, at: at, tree: t}
	if w.list(t.Root, true, s.sure); w.faults == 0 {
		s.try(at, t)
	}
	return text{made: t}
}

// try executes a template with whatever it may find: that shows what is wrong
// with the kinds of its values.
func (s scope) try(at document.Section, t *parse.Tree) {
	for _, word := range []string{"", "0"} {
		d := data{Input: word, Vars: make(map[string]string), Stages: make(map[string]string), Fields: make(map[string]map[string]string)}
		for name := range s.p.Vars {
			d.Vars[name] = word
		}
		for id := range s.p.index {
			d.Stages[id], d.Fields[id] = word, make(map[string]string)
			for _, name := range s.p.fields[id] {
				d.Fields[id][name] = word
			}
		}
		if _, err := d.fill(t); err != nil {
			line, detail := place(err.Error())
			at.FaultAt(line, "%s", detail)
			return
		}
	}
}

// place takes an error of text/template/parse, or of fill, apart: "template: :3: …" or, with a
// column, "template: :3:7: …".
func place(said string) (line int, detail string) {
	detail = strings.TrimPrefix(said, "template: :")
	if n, err := fmt.Sscanf(detail, "%d:", &line); n != 1 || err != nil {
		return 1, said
	}
	for range 2 {
		digits, rest, found := strings.Cut(detail, ":")
		if !found || digits == "" || strings.Trim(digits, "0123456789") != "" {
			break
		}
		detail = rest
	}
	detail, _, _ = strings.Cut(detail, " started at ") // which line of the text that is says little of the file's
	return max(line, 1), strings.TrimSpace(detail)
}

// walk goes through a template.
type walk struct {
	scope
	at     document.Section
	tree   *parse.Tree
	faults int
	parts  int
}

// fault notes what is wrong with a part of the template.
func (w *walk) fault(n parse.Node, format string, args ...any) {
	where, _ := w.tree.ErrorContext(n) // name:line:column
	line := 1
	_, _ = fmt.Sscanf(strings.TrimPrefix(where, ":"), "%d:", &line)
	w.at.FaultAt(line, format, args...)
	w.faults++
}

// list checks what is executed with those stages known to have run. At the root
// the dot is the data.
func (w *walk) list(l *parse.ListNode, root bool, sure map[string]bool) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
		case *parse.ActionNode:
			w.pipe(n.Pipe, root, sure, false)
		case *parse.IfNode:
			w.pipe(n.Pipe, root, sure, true)
			w.list(n.List, root, w.and(sure, n.Pipe))
			w.list(n.ElseList, root, sure)
		case *parse.WithNode:
			w.pipe(n.Pipe, root, sure, true)
			w.list(n.List, false, w.and(sure, n.Pipe))
			w.list(n.ElseList, root, sure)
		default:
			w.fault(n, "there are no loops and no other templates here")
		}
	}
}

// pipe checks what is computed. Whoever asks gets no answer of a stage that has
// not run, and knows.
func (w *walk) pipe(p *parse.PipeNode, root bool, sure map[string]bool, asks bool) {
	if len(p.Decl) > 0 {
		w.fault(p, "there are no variables here")
		return
	}
	for _, c := range p.Cmds {
		function, _ := c.Args[0].(*parse.IdentifierNode)
		for i, arg := range c.Args {
			free := asks
			if function != nil && function.Ident == "or" {
				free = asks || i < len(c.Args)-1
			}
			w.operand(arg, root, sure, free)
		}
	}
}

// operand checks a part of a command.
func (w *walk) operand(n parse.Node, root bool, sure map[string]bool, asks bool) {
	if w.parts++; w.parts == mostParts+1 {
		w.fault(n, "there are more than %d functions, names and values in it", mostParts)
	}
	switch n := n.(type) {
	case *parse.IdentifierNode:
		if !slices.Contains(allowed, n.Ident) {
			w.fault(n, "there is no function %s here%s", n.Ident, document.Suggestion(n.Ident, slices.Values(allowed)))
		}
	case *parse.PipeNode:
		w.pipe(n, root, sure, asks)
	case *parse.FieldNode:
		if !root {
			w.fault(n, "within with, %s is of what it is about; write $%s", n, n)
			return
		}
		w.reference(n, n.Ident, sure, asks)
	case *parse.VariableNode: // the only one is $
		w.reference(n, n.Ident[1:], sure, asks)
	case *parse.DotNode:
		if root {
			w.fault(n, "a dot alone says nothing here")
		}
	case *parse.StringNode, *parse.NumberNode, *parse.BoolNode, *parse.NilNode:
	default:
		w.fault(n, "%s is nothing that can be written here", n)
	}
}

// reference checks a name.
func (w *walk) reference(n parse.Node, name []string, sure map[string]bool, asks bool) {
	switch {
	case len(name) == 1 && name[0] == "Input":
		w.p.NeedsInput = true
	case len(name) == 2 && name[0] == "Vars":
		if _, ok := w.p.Vars[name[1]]; !ok {
			w.fault(n, "there is no variable %s%s", name[1], suggestion(name[1], maps.Keys(w.p.Vars)))
		}
	case len(name) == 2 && name[0] == "Stages":
		w.stage(n, name[1], sure, asks)
	case len(name) == 3 && name[0] == "Fields":
		if w.stage(n, name[1], sure, asks) {
			w.p.field(func(format string, args ...any) { w.fault(n, format, args...) }, name[1], name[2])
		}
	default:
		w.fault(n, "%s is none of .Input, .Vars.NAME, .Stages.ID and .Fields.ID.NAME", n)
	}
}

// stage checks the name of a stage before, and reports whether there is one.
func (w *walk) stage(n parse.Node, id string, sure map[string]bool, asks bool) bool {
	switch {
	case !w.p.known(id):
		w.fault(n, "there is no stage %s%s", id, suggestion(id, maps.Keys(w.p.index)))
		return false
	case !w.before[id]:
		w.fault(n, "the stage %s never runs before this one", id)
		return false
	case !asks && !sure[id]:
		w.fault(n, "the stage %s may not have run before this one; ask whether it has: {{with .Stages.%s}}, {{or .Stages.%s .Input}}", id, id, id)
	}
	return true
}

// and returns the stages that are known to have run where a pipe is not empty.
func (w *walk) and(sure map[string]bool, p *parse.PipeNode) map[string]bool {
	more := maps.Clone(sure)
	for _, id := range asked(p) {
		more[id] = true
	}
	return more
}

// asked returns the stages of which a pipe that is not empty tells that they have
// run.
func asked(p *parse.PipeNode) (ids []string) {
	if len(p.Cmds) != 1 {
		return nil
	}
	args := p.Cmds[0].Args
	if function, ok := args[0].(*parse.IdentifierNode); ok {
		if function.Ident != "and" {
			return nil
		}
		args = args[1:]
	} else if len(args) > 1 {
		return nil
	}
	for _, arg := range args {
		var name []string
		switch n := arg.(type) {
		case *parse.FieldNode:
			name = n.Ident
		case *parse.VariableNode:
			name = n.Ident[1:]
		case *parse.PipeNode:
			ids = append(ids, asked(n)...)
		}
		if len(name) >= 2 && (name[0] == "Stages" || name[0] == "Fields") {
			ids = append(ids, name[1])
		}
	}
	return ids
}
