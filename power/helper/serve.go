package helper

import (
	"context"
	"net"
	"time"
)

// Serve answers on a listener until nobody has been there for as long as idle,
// or ctx is done, and closes it. Who comes afterwards is the service manager's,
// which starts the next process.
//
// Whoever comes is admitted by itself, one after the other, for which converse
// then runs beside the others, and leave in the end, by itself again. There is
// no converse for who is refused.
func Serve(ctx context.Context, l net.Listener, idle time.Duration, admit func(net.Conn) (converse, leave func())) {
	defer l.Close()
	came, left, over := make(chan net.Conn), make(chan func()), ctx.Done()
	go accept(l, came)
	inside, last := 0, time.NewTimer(idle)
	defer last.Stop()
	for came != nil || inside > 0 {
		select {
		case conn, ok := <-came:
			if !ok {
				came = nil
			} else if converse, leave := admit(conn); converse != nil {
				inside++
				go func() {
					defer func() { left <- leave }()
					converse()
				}()
			}
		case leave := <-left:
			leave()
			inside--
			last.Reset(idle)
		case <-last.C:
			if inside == 0 {
				_ = l.Close()
			}
		case <-over:
			over = nil
			_ = l.Close()
		}
	}
}

// accept passes on all who come, until the listener is closed.
func accept(l net.Listener, came chan<- net.Conn) {
	defer close(came)
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		came <- conn
	}
}
