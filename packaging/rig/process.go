package rig

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// patience is how long a part may take to end when asked.
const patience = 5 * time.Second

// A Process is a program that runs beside us and does not outlive us.
type Process struct {
	cmd   *exec.Cmd
	leash *leash // Nil for one that starts no others.
	done  chan struct{}
	err   error // How it ended; to be read after done.
}

// Start starts cmd in a process group of its own, so that a Ctrl-C at the
// terminal is ours to act on, and so that the whole group can be ended.
//
// The caller sets what cmd reads and writes. Start sets its SysProcAttr.
func Start(cmd *exec.Cmd) (*Process, error) { return start(cmd, nil) }

// StartFamily is Start for a program that starts others, which are not to
// outlive us either.
func StartFamily(cmd *exec.Cmd) (*Process, error) {
	l, err := newLeash()
	if err != nil {
		return nil, err
	}
	p, err := start(cmd, l)
	if err != nil {
		l.drop()
	}
	return p, err
}

func start(cmd *exec.Cmd, l *leash) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 100 * time.Millisecond // For what outlives cmd and holds its output open.
	p := &Process{cmd: cmd, leash: l, done: make(chan struct{})}

	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that forked ends, not the
		// process (prctl(2), golang.org/issue/27505). So this goroutine keeps
		// its thread until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		err := cmd.Start()
		if err == nil && l != nil {
			l.attach(p.PID())
		}
		started <- err
		if err == nil {
			p.wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return p, nil
}

// wait reaps the child, and at once ends what is left of its group: later the
// group's number may be somebody else's.
func (p *Process) wait() {
	p.err = p.cmd.Wait()
	_ = p.signalGroup(syscall.SIGKILL)
	if p.leash != nil {
		p.leash.drop()
	}
	close(p.done)
}

// PID is the process's number, and that of its group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the process ended: nil for exit code 0, else as exec's Wait.
// It is to be asked after Done.
func (p *Process) Err() error { return p.err }

// Await asks ready, 50 times a second, until it has no complaint. It gives up
// when the process ends or ctx is done.
func (p *Process) Await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w", p.name(), p.ending())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w", p.name(), ctx.Err(), err)
		}
	}
}

// Stop asks the process to end, with SIGTERM. If it has not after grace, Stop
// kills it with its whole group and says so. One that has ended is no error.
func (p *Process) Stop(grace time.Duration) error {
	told := p.cmd.Process.Signal(syscall.SIGTERM) == nil
	if !told {
		<-p.done // It has ended, and is being reaped.
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
		return errors.Join(fmt.Errorf("%s did not end within %v of being asked", p.name(), grace), p.Kill())
	}
}

// Kill ends the process and its whole group with SIGKILL, and waits for that.
func (p *Process) Kill() error {
	if err := p.signalGroup(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", p.name(), err)
	}
	<-p.done
	return nil
}

// Close is Stop with the patience that the parts of the rig deserve.
func (p *Process) Close() error { return p.Stop(patience) }

func (p *Process) name() string { return filepath.Base(p.cmd.Path) }

// ending is Err for one that should have gone on: it is never nil.
func (p *Process) ending() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// signalGroup signals the process and those that it started. That none of them
// is left is no error.
func (p *Process) signalGroup(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := syscall.Kill(-p.PID(), sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
