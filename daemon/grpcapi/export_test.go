package grpcapi

import "time"

// What tests see of the inside.
var (
	CodeOf      = codeOf
	GenerateJob = generateJob
	EmbedJob    = embedJob
	Clip        = clip
)

// SetStalled shortens how long a client may leave a message unread.
func (s *Server) SetStalled(d time.Duration) { s.stalled = d }

// SetLongest bounds answers in one piece.
func (s *Server) SetLongest(bytes int) { s.longest = bytes }
