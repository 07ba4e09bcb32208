package bus

import (
	"fmt"
	"sync"

	godbus "github.com/godbus/dbus/v5"
)

// Callers tells when somebody who called us leaves the bus. The bus is asked
// about those alone whom somebody here has an interest in, so that programs
// which come and go by the hundred do not wake us.
//
// The zero Callers is of a connection that is still to be made.
type Callers struct {
	listen  sync.Once
	signals chan *godbus.Signal

	mu      sync.Mutex // guards the following
	watched map[string]map[*func()]bool
}

// Run takes in what the bus says until the connection ends; then all have left.
func (c *Callers) Run(conn *godbus.Conn) {
	c.Listen(conn)
	defer c.allLeft(conn)
	for {
		select {
		case s, ok := <-c.signals:
			if !ok {
				return
			}
			c.take(conn, s)
		case <-conn.Context().Done():
			return
		}
	}
}

// Listen has signals kept for Run, which may begin a little later. Whoever needs
// them listens, if nobody has yet.
func (c *Callers) Listen(conn *godbus.Conn) {
	c.listen.Do(func() {
		c.signals = make(chan *godbus.Signal, 16)
		conn.Signal(c.signals)
	})
}

// take takes in one signal. Only the bus itself is believed: anybody can send
// us anything directly, match or no match.
func (c *Callers) take(conn *godbus.Conn, s *godbus.Signal) {
	if s.Sender != busName || s.Name != nameOwnerChanged || len(s.Body) != 3 {
		return
	}
	name, _ := s.Body[0].(string)
	if owner, _ := s.Body[2].(string); owner == "" {
		c.left(conn, name)
	}
}

// Watch has left called, once, when the caller with that unique name leaves
// the bus, or at once if it has already. It may do so while the watch is being
// ended.
func (c *Callers) Watch(conn *godbus.Conn, name string, left func()) (end func()) {
	c.Listen(conn)
	watcher := &left
	c.mu.Lock()
	first := c.watched[name] == nil
	if first {
		if c.watched == nil {
			c.watched = make(map[string]map[*func()]bool)
		}
		c.watched[name] = make(map[*func()]bool)
	}
	c.watched[name][watcher] = true
	c.mu.Unlock()
	if first && !subscribe(conn, name) {
		c.left(conn, name)
	}
	return func() { c.end(conn, name, watcher) }
}

// subscribe has the bus tell us of a name, and reports whether it has an owner
// still. Subscribing comes first, or we could miss its end.
func subscribe(conn *godbus.Conn, name string) (owned bool) {
	bus := conn.BusObject()
	bus.Go(busName+".AddMatch", godbus.FlagNoReplyExpected, nil, rule(name))
	err := bus.CallWithContext(conn.Context(), busName+".NameHasOwner", 0, name).Store(&owned)
	return err == nil && owned
}

func unsubscribe(conn *godbus.Conn, name string) {
	conn.BusObject().Go(busName+".RemoveMatch", godbus.FlagNoReplyExpected, nil, rule(name))
}

func rule(name string) string {
	return fmt.Sprintf("type='signal',sender='%s',interface='%[1]s',member='NameOwnerChanged',arg0='%s'", busName, name)
}

// end ends a watch.
func (c *Callers) end(conn *godbus.Conn, name string, watcher *func()) {
	c.mu.Lock()
	delete(c.watched[name], watcher)
	last := c.watched[name] != nil && len(c.watched[name]) == 0
	if last {
		delete(c.watched, name)
	}
	c.mu.Unlock()
	if last {
		unsubscribe(conn, name)
	}
}

// left tells everybody who watches a name.
func (c *Callers) left(conn *godbus.Conn, name string) {
	c.mu.Lock()
	watchers := c.watched[name]
	delete(c.watched, name)
	c.mu.Unlock()
	if watchers == nil {
		return
	}
	unsubscribe(conn, name)
	for left := range watchers {
		(*left)()
	}
}

// allLeft is left for every name.
func (c *Callers) allLeft(conn *godbus.Conn) {
	c.mu.Lock()
	var names []string
	for name := range c.watched {
		names = append(names, name)
	}
	c.mu.Unlock()
	for _, name := range names {
		c.left(conn, name)
	}
}
