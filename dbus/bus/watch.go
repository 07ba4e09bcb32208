package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// watch is what we know of one service.
//
// Signals and answers come to us on two ways, where they can overtake each
// other: what is older than what is known already is of no use.
type watch struct {
	Service
	owner   string // Its unique name, or "" if there is nobody.
	since   godbus.Sequence
	objects []*object
	news    bool // Whether Changed is yet to be called.
}

// object is what we know of one object.
type object struct {
	Object
	mirror   Mirror // Nil if we do not know.
	heard    godbus.Sequence
	asked    bool          // Whether an answer is due.
	patience time.Duration // How long we wait for it.
}

func newWatch(s Service) *watch {
	w := &watch{Service: s}
	for _, o := range s.Objects {
		w.objects = append(w.objects, &object{Object: o})
	}
	return w
}

// rules returns the match rules for the signals of interest. Those with a
// well-known sender stand for whoever owns that name when a signal is sent.
func (w *watch) rules() []string {
	rules := []string{fmt.Sprintf("type='signal',sender='%s',interface='%[1]s',member='NameOwnerChanged',arg0='%s'", busName, w.Name)}
	for _, o := range w.objects {
		rules = append(rules, fmt.Sprintf("type='signal',sender='%s',path='%s',interface='%s',member='PropertiesChanged',arg0='%s'",
			w.Name, o.Path, propertiesIface, o.Interface))
	}
	return rules
}

// own takes in who the owner is, and returns what to ask it for.
func (w *watch) own(owner string, as godbus.Sequence) (ask []*object) {
	if as < w.since || owner != "" && owner == w.owner {
		return nil
	}
	w.owner, w.since = owner, as
	for _, o := range w.objects {
		*o = object{Object: o.Object, asked: owner != "", patience: patience}
	}
	if owner == "" {
		w.news = true
		return nil
	}
	return w.objects
}

// hear takes in a PropertiesChanged of the owner, and returns what has to be
// asked for.
func (w *watch) hear(s *godbus.Signal) (ask []*object) {
	c, ok := parseChange(s.Body)
	if !ok {
		return nil
	}
	for _, o := range w.objects {
		if o.Path != s.Path || o.Interface != c.iface || s.Sequence < o.heard {
			continue
		}
		o.heard = s.Sequence
		if o.mirror != nil && o.merge(c.changed) {
			w.news = true
		}
		stale := o.mirror == nil || slices.ContainsFunc(c.invalidated, o.wants)
		if stale && !o.asked {
			o.asked = true
			ask = append(ask, o)
		}
	}
	return ask
}

// answer is what came of asking for all properties of an object.
type answer struct {
	all      map[string]godbus.Variant
	err      error
	sequence godbus.Sequence
}

// answer takes in an answer. It reports whether that will do; else the object
// has to be asked for again.
func (w *watch) answer(o *object, a answer) bool {
	late := errors.Is(a.err, context.DeadlineExceeded)
	if !late && a.sequence < o.heard {
		return false // A signal has overtaken it, and may have said more.
	}
	w.news = true
	o.mirror = nil
	if late {
		o.patience = min(2*o.patience, lastWait)
		return false
	}
	o.asked = false
	o.heard = a.sequence
	if a.err == nil {
		o.mirror = make(Mirror)
		o.merge(a.all)
	}
	return true
}

// tell tells of news, once every object is known or known not to be.
func (w *watch) tell(ctx context.Context) {
	if !w.news {
		return
	}
	var known []Mirror
	for _, o := range w.objects {
		switch {
		case o.mirror != nil:
			known = append(known, o.mirror)
		case o.asked && o.patience == patience:
			return // The first answer is due soon.
		}
	}
	w.news = false
	if len(known) < len(w.objects) {
		known = nil
	}
	w.Changed(ctx, known)
}

// merge takes over those values that matter, and reports whether any does.
func (o *object) merge(values map[string]godbus.Variant) (matter bool) {
	for _, name := range o.Wanted {
		if v, ok := values[name]; ok {
			o.mirror[name] = v
			matter = true
		}
	}
	return matter
}

func (o *object) wants(name string) bool { return slices.Contains(o.Wanted, name) }

// change is what a PropertiesChanged says.
type change struct {
	iface       string
	changed     map[string]godbus.Variant
	invalidated []string
}

// parseChange returns what the body of a PropertiesChanged says, and whether
// it is one.
func parseChange(body []any) (c change, ok bool) {
	if len(body) != 3 {
		return c, false
	}
	var ok1, ok2, ok3 bool
	c.iface, ok1 = body[0].(string)
	c.changed, ok2 = body[1].(map[string]godbus.Variant)
	c.invalidated, ok3 = body[2].([]string)
	return c, ok1 && ok2 && ok3
}

var errNoProperties = errors.New("the answer is not of properties")

// allProperties returns what GetAll answers.
func allProperties(c *godbus.Call) (map[string]godbus.Variant, error) {
	if c.Err != nil {
		return nil, c.Err
	}
	if len(c.Body) == 1 {
		if all, ok := c.Body[0].(map[string]godbus.Variant); ok {
			return all, nil
		}
	}
	return nil, errNoProperties
}
