package peer

// Program returns the name of the program that a process runs, or "" if it has
// ended. It is the name that the program has for itself, so it is for people to
// read and nothing to trust.
func (t Table) Program(pid int) string {
	p, err := t.fs.Proc(pid)
	if err != nil {
		return ""
	}
	name, _ := p.Comm() // it has just ended
	return name
}
