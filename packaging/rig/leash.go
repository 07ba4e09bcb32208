package rig

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// keeper is a shell that reads the number of a process group and then waits
// for a word that all is well. If its input ends without that word, then we
// have been killed, and it kills the group.
const keeper = `read -r group && { read -r well || kill -KILL "-$group"; }`

// A leash ends a process group when we are killed. Pdeathsig does that for the
// processes that we start, and not for those that they start in turn.
type leash struct {
	keeper *exec.Cmd
	hold   io.WriteCloser
}

func newLeash() (*leash, error) {
	cmd := &exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", keeper}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("leash: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("leash: %w", err)
	}
	return &leash{keeper: cmd, hold: hold}, nil
}

// attach puts a process group on the leash.
func (l *leash) attach(group int) { _, _ = fmt.Fprintln(l.hold, group) }

// drop lets the group go, without harm to anybody. If the keeper is gone
// already, then so is the leash.
func (l *leash) drop() {
	_, _ = fmt.Fprintln(l.hold, "well")
	_ = l.hold.Close()
	_ = l.keeper.Wait()
}
