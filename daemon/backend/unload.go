package backend

import "context"

// An Unloader is a server that can be asked to let go of a model. Those that
// cannot do not implement it.
type Unloader interface {
	Unload(ctx context.Context, model string) error
}

// Unloaded records that a backend has let go of a model.
func (s *Set) Unloaded(id, model string) {
	s.update(id, func(e *entry) bool { return e.resides(model, false) })
}
