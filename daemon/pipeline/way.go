package pipeline

import (
	"maps"
	"strings"
)

// way looks at the ways through the pipeline, and returns for each stage which may
// have run before it, and which surely have an answer then, or nil if no way leads
// there. That is a fault, and so is a way back, with which there is nothing to
// return.
func (p *parser) way() (before, sure []map[string]bool) {
	n := len(p.Stages)
	before, sure = make([]map[string]bool, n), make([]map[string]bool, n)
	for i := range n {
		before[i] = make(map[string]bool)
	}
	order := p.order()
	if order == nil {
		return nil, nil
	}
	sure[order[0]] = make(map[string]bool)
	for _, i := range order {
		stage := &p.Stages[i]
		may, must := maps.Clone(before[i]), maps.Clone(sure[i])
		may[stage.ID] = true
		if stage.Tiers == nil {
			must[stage.ID] = true
		}
		for _, b := range stage.next {
			if b.to == end {
				continue
			}
			maps.Copy(before[b.to], may)
			if sure[b.to] == nil {
				sure[b.to] = maps.Clone(must)
			}
			maps.DeleteFunc(sure[b.to], func(id string, _ bool) bool { return !must[id] })
		}
	}
	p.questions(before)
	return before, sure
}

// questions faults conditions about stages that never run before them.
func (p *parser) questions(before []map[string]bool) {
	for _, q := range p.asked {
		if id := p.Stages[q.of].ID; q.of != q.by && !before[q.by][id] {
			q.at.Fault("the stage %s never runs before this one", id)
		}
	}
}

// order returns the stages that can be reached, each after all that lead to it. It
// is empty if there is a way back.
func (p *parser) order() []int {
	const unseen, open, done = 0, 1, 2
	state := make([]int, len(p.Stages))
	var path, order []int
	cycle := false
	var visit func(i int)
	visit = func(i int) {
		state[i] = open
		path = append(path, i)
		for _, b := range p.Stages[i].next {
			switch {
			case b.to == end:
			case state[b.to] == unseen:
				visit(b.to)
			case state[b.to] == open:
				cycle = true
				p.circle(path, b.to)
			}
		}
		path = path[:len(path)-1]
		state[i] = done
		order = append([]int{i}, order...)
	}
	visit(0)
	for i, s := range state {
		if s == unseen {
			p.found[i].all.Fault("no way leads to the stage %s", p.Stages[i].ID)
		}
	}
	if cycle {
		return nil
	}
	return order
}

// circle faults a way back to a stage on the path.
func (p *parser) circle(path []int, to int) {
	var ids []string
	for _, i := range path {
		if i == to || len(ids) > 0 {
			ids = append(ids, p.Stages[i].ID)
		}
	}
	at := p.found[path[len(path)-1]]
	where := at.all
	if at.next.There() {
		where = at.next
	}
	where.Fault("there is no way back, and this is one: %s", strings.Join(append(ids, p.Stages[to].ID), ", "))
}
