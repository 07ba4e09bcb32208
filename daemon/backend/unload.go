package backend

// Unloaded records that a backend has let go of a model.
func (s *Set) Unloaded(id, model string) {
	s.update(id, func(e *entry) bool { return e.resides(model, false) })
}
