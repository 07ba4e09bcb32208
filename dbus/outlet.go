package dbus

import (
	"context"
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// outlet is the writing end of a pipe or socket that a caller handed us.
//
// What it leads to is shared with the caller, and perhaps with others, so it
// is never switched to non-blocking: a pipe is opened anew, and a socket is
// told with each write. Waiting for it is the business of an epoll descriptor
// of our own, for which in turn Go's poller waits, and no thread.
type outlet struct {
	fd    int
	send  func(fd int, p []byte) (int, error)
	poll  *os.File // the epoll descriptor
	stall time.Duration
	slow  time.Duration // what is left of it

	writable chan struct{} // holds one
	hungUp   chan struct{} // closed when the reader is gone
	watched  chan struct{} // closed when nobody uses poll any more
}

var (
	errUnread  = badSink("has nobody at its other end")
	errHungUp  = job.Errorf(job.Cancelled, "the reader has closed its end")
	errStalled = job.Errorf(job.Cancelled, "the reader has stopped reading")
	errSlow    = job.Errorf(job.Cancelled, "the reader holds up the backend")
)

// openOutlet returns an outlet to where fd leads, which stays the caller's to
// close. A reader who takes nothing for as long as limits.stall has stopped
// reading, and one who takes little by little may hold up the answer for as long
// as limits.slow in all: backends work on one job at a time. onHangUp is called
// when the reader is gone, whether anything is being written
// or not.
func openOutlet(fd int, l limits, onHangUp func()) (*outlet, error) {
	o := &outlet{stall: l.stall, slow: l.slow, writable: make(chan struct{}, 1), hungUp: make(chan struct{}), watched: make(chan struct{})}
	var status syscall.Stat_t
	if err := syscall.Fstat(fd, &status); err != nil {
		return nil, badSink("%v", err)
	}
	var err error
	switch status.Mode & syscall.S_IFMT {
	case syscall.S_IFIFO:
		o.send = syscall.Write
		o.fd, err = reopenPipe(fd)
	case syscall.S_IFSOCK:
		o.send = sendNow
		o.fd, err = duplicateSocket(fd)
	default:
		err = badSink("is neither a pipe nor a socket")
	}
	if err != nil {
		return nil, err
	}
	if err := o.openPoll(); err != nil {
		_ = syscall.Close(o.fd)
		return nil, err
	}
	if o.unread() {
		_, _ = o.poll.Close(), syscall.Close(o.fd)
		return nil, errUnread
	}
	go o.watch(onHangUp)
	return o, nil
}

func badSink(format string, args ...any) error { return job.InvalidField("sink", format, args...) }

// reopenPipe opens a pipe anew for writing, so that what is ours can be
// non-blocking while the caller's stays as it is.
func reopenPipe(fd int) (int, error) {
	flags, err := fcntl(fd, syscall.F_GETFL, 0)
	if err != nil {
		return 0, badSink("%v", err)
	}
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		return 0, badSink("is the reading end of a pipe, want the writing one")
	}
	own, err := syscall.Open("/proc/self/fd/"+strconv.Itoa(fd), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errors.Is(err, syscall.ENXIO) {
		return 0, errUnread // Of a named pipe; the others are found out later.
	}
	if err != nil {
		return 0, badSink("cannot be opened: %v", err)
	}
	return own, nil
}

// duplicateSocket returns a descriptor of our own for a socket.
func duplicateSocket(fd int) (int, error) {
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return 0, badSink("%v", err)
	}
	if kind != syscall.SOCK_STREAM {
		return 0, badSink("is a socket for messages, want one for a stream")
	}
	if _, err := syscall.Getpeername(fd); err != nil {
		return 0, badSink("is a socket without a peer: %v", err)
	}
	// Of this no event tells, but Linux looks at it before there is anything to
	// send.
	if _, err := sendNow(fd, nil); errors.Is(err, syscall.EPIPE) {
		return 0, badSink("is a socket whose sending half is shut down")
	}
	own, err := fcntl(fd, syscall.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0, badSink("%v", err)
	}
	return own, nil
}

// sendNow writes what a socket takes at once.
func sendNow(fd int, p []byte) (int, error) {
	return syscall.SendmsgN(fd, p, nil, nil, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

func fcntl(fd, command, argument int) (int, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), uintptr(command), uintptr(argument))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// write writes all of p, waiting for the reader as long as he goes on reading,
// and ctx lasts.
func (o *outlet) write(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		n, err := o.send(o.fd, p)
		switch {
		case err == nil:
			p = p[n:]
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			if err := o.await(ctx); err != nil {
				return err
			}
		case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
			return errHungUp
		default:
			return &job.Error{Code: job.Cancelled, Detail: "the reader cannot be written to", Err: err}
		}
	}
	return nil
}

// await returns when the reader may have made room.
func (o *outlet) await(ctx context.Context) error {
	if err := o.interest(syscall.EPOLL_CTL_MOD, syscall.EPOLLOUT); err != nil {
		return err
	}
	began := time.Now()
	defer func() { o.slow -= time.Since(began) }()
	enough := time.NewTimer(min(o.stall, o.slow))
	defer enough.Stop()
	select {
	case <-o.writable:
		return nil
	case <-o.hungUp:
		return errHungUp
	case <-enough.C:
		if o.slow < o.stall {
			return errSlow
		}
		return errStalled
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close closes the outlet: the reader comes to the end of what was written. No
// write may be under way.
func (o *outlet) close() {
	_ = o.poll.Close()
	<-o.watched
	_ = syscall.Close(o.fd)
}
