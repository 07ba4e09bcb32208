package httpapi

import (
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/token"
)

// What tests see of the inside.
var (
	StatusOf  = statusOf
	OllamaJob = ollamaJob
	OpenAIJob = openAIJob

	MessagesJob  = messagesJob
	ResponsesJob = responsesJob
)

// Endpoints are what is here, each with the right that it takes.
func Endpoints() map[string]token.Right {
	all := make(map[string]token.Right)
	for pattern := range new(Server).endpoints() {
		_, path, _ := strings.Cut(pattern, " ")
		all[pattern] = rightFor(strings.TrimSuffix(path, "{$}"))
	}
	return all
}

// SetStalled shortens how long a client may leave its answer unread.
func (s *Server) SetStalled(d time.Duration) { s.stalled = d }

// SetSlow shortens for how long a client may hold up a backend.
func (s *Server) SetSlow(d time.Duration) { s.slow = d }

// SetArriving shortens how long a client may take to send a body.
func (s *Server) SetArriving(d time.Duration) { s.arriving = d }
