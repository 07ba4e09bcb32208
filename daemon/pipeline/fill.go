package pipeline

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"text/template/parse"
)

// filling fills in a template, as text/template's Execute does with what of it can
// be written here. That looks for methods by name, for the sake of which the linker
// keeps every method of the whole program: a seventh of the daemon.
type filling struct {
	data
	tree *parse.Tree
	to   bounded
}

// fill returns what becomes of a template.
func (d data) fill(t *parse.Tree) (string, error) {
	f := &filling{data: d, tree: t}
	err := f.list(t.Root, nil)
	return f.to.String(), err
}

// list writes what becomes of some nodes, with that dot.
func (f *filling) list(l *parse.ListNode, dot any) error {
	if l == nil {
		return nil
	}
	for _, n := range l.Nodes {
		var err error
		switch n := n.(type) {
		case *parse.TextNode:
			_, err = f.to.Write(n.Text)
		case *parse.ActionNode:
			var v any
			if v, err = f.pipe(n.Pipe, dot); err == nil {
				_, err = fmt.Fprint(&f.to, v)
			}
		case *parse.IfNode:
			err = f.branch(&n.BranchNode, dot, false)
		case *parse.WithNode:
			err = f.branch(&n.BranchNode, dot, true)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *filling) branch(n *parse.BranchNode, dot any, with bool) error {
	v, err := f.pipe(n.Pipe, dot)
	switch {
	case err != nil:
		return err
	case !truth(v):
		return f.list(n.ElseList, dot)
	case with:
		dot = v
	}
	return f.list(n.List, dot)
}

// pipe returns the value of the last of some commands, each of which has that of
// the one before as its last argument.
func (f *filling) pipe(p *parse.PipeNode, dot any) (v any, err error) {
	for i, c := range p.Cmds {
		var last []any
		if i > 0 {
			last = []any{v}
		}
		if v, err = f.command(c, dot, last); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (f *filling) command(c *parse.CommandNode, dot any, last []any) (any, error) {
	function, ok := c.Args[0].(*parse.IdentifierNode)
	if !ok {
		if len(c.Args)+len(last) > 1 {
			return nil, f.wrong(c, "%s is no function and takes no arguments", c.Args[0])
		}
		return f.operand(c.Args[0], dot)
	}
	if name := function.Ident; name == "and" || name == "or" { // which look at no more than they need
		for i, arg := range c.Args[1:] {
			v, err := f.operand(arg, dot)
			if err != nil || truth(v) == (name == "or") || i+2 == len(c.Args) && len(last) == 0 {
				return v, err
			}
		}
		if len(last) == 0 {
			return nil, f.wrong(c, "%s takes an argument", name)
		}
		return last[0], nil
	}
	var args []any
	for _, arg := range c.Args[1:] {
		v, err := f.operand(arg, dot)
		if err != nil {
			return nil, err
		}
		args = append(args, v)
	}
	v, err := call(function.Ident, append(args, last...))
	if err != nil {
		return nil, f.wrong(c, "%s: %w", function.Ident, err)
	}
	return v, nil
}

// operand returns the value of a part of a command: a text, an int, a float64 or a
// bool.
func (f *filling) operand(n parse.Node, dot any) (any, error) {
	switch n := n.(type) {
	case *parse.DotNode:
		return dot, nil
	case *parse.FieldNode:
		return f.reference(n, n.Ident)
	case *parse.VariableNode: // the only one is $
		return f.reference(n, n.Ident[1:])
	case *parse.StringNode:
		return n.Text, nil
	case *parse.BoolNode:
		return n.True, nil
	case *parse.NumberNode:
		switch {
		case n.IsInt:
			return int(n.Int64), nil
		case n.IsFloat:
			return n.Float64, nil
		}
	case *parse.PipeNode:
		return f.pipe(n, dot)
	}
	return nil, f.wrong(n, "%s has no value", n)
}

// reference returns the text of a name that has been found to be one.
func (f *filling) reference(n parse.Node, name []string) (any, error) {
	var text string
	known := true
	switch name[0] {
	case "Input":
		text = f.Input
	case "Vars":
		text, known = f.Vars[name[1]]
	case "Stages":
		text, known = f.Stages[name[1]]
	case "Fields":
		text, known = f.Fields[name[1]][name[2]]
	}
	if !known {
		return nil, f.wrong(n, "there is no %s", n)
	}
	return text, nil
}

// wrong says what is wrong with a part of the template, and where.
func (f *filling) wrong(n parse.Node, format string, args ...any) error {
	where, _ := f.tree.ErrorContext(n)
	return fmt.Errorf("template: "+where+": "+format, args...)
}

// truth reports whether a value is any.
func truth(v any) bool {
	switch v := v.(type) {
	case string:
		return v != ""
	case int:
		return v != 0
	case float64:
		return v != 0
	case bool:
		return v
	default:
		return false
	}
}

var errArguments = errors.New("it takes other arguments")

// call returns the value of a function, but for and and or.
func call(name string, args []any) (any, error) {
	if len(args) == 0 {
		return nil, errArguments
	}
	first := args[0]
	text, isText := args[len(args)-1].(string)
	switch {
	case name == "not" && len(args) == 1:
		return !truth(first), nil
	case name == "len" && len(args) == 1 && isText:
		return len(text), nil
	case name == "lower" && len(args) == 1 && isText:
		return strings.ToLower(text), nil
	case name == "trim" && len(args) == 1 && isText:
		return strings.TrimSpace(text), nil
	case name == "clip" && len(args) == 2 && isText:
		if n, ok := first.(int); ok {
			return clip(n, text), nil
		}
	case name == "eq" && len(args) > 1:
		for _, other := range args[1:] {
			if same, err := equal(first, other); err != nil || same {
				return same, err
			}
		}
		return false, nil
	case name == "ne" && len(args) == 2:
		same, err := equal(first, args[1])
		return !same, err
	case order[name] != nil && len(args) == 2:
		c, err := compare(first, args[1])
		return order[name](c), err
	}
	return nil, errArguments
}

// order is the functions that tell how two values compare.
var order = map[string]func(int) bool{
	"lt": func(c int) bool { return c < 0 },
	"le": func(c int) bool { return c <= 0 },
	"gt": func(c int) bool { return c > 0 },
	"ge": func(c int) bool { return c >= 0 },
}

// equal reports whether values of one kind are the same.
func equal(a, b any) (bool, error) {
	if a, ok := a.(bool); ok {
		if b, ok := b.(bool); ok {
			return a == b, nil
		}
	}
	c, err := compare(a, b)
	return c == 0, err
}

// compare compares texts or numbers of one kind.
func compare(a, b any) (int, error) {
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok {
			return strings.Compare(a, b), nil
		}
	case int:
		if b, ok := b.(int); ok {
			return cmp.Compare(a, b), nil
		}
	case float64:
		if b, ok := b.(float64); ok {
			return cmp.Compare(a, b), nil
		}
	}
	return 0, errors.New("these are of different kinds")
}
