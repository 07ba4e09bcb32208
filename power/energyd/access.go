package energyd

import (
	"slices"

	"github.com/joulemux/joulemux/power/helper"
)

// Access says who may ask, beside root.
//
// On a desktop that is a group, which the one who owns the machine puts users
// into: who sits in front of it would have to be asked of logind, over a bus
// that the helper does not need otherwise. The socket's own group and mode say
// the same. They are checked by the kernel when somebody connects, and can be
// changed by a slip of the hand.
type Access struct {
	Users  []uint32
	Groups []uint32
}

func (a Access) admits(p helper.Peer) bool {
	return p.UID == 0 || slices.Contains(a.Users, p.UID) || slices.Contains(a.Groups, p.GID) ||
		slices.ContainsFunc(p.Groups, func(g uint32) bool { return slices.Contains(a.Groups, g) })
}
