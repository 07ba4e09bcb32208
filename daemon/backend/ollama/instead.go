package ollama

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/backend/events"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// lacks reports whether a server has nothing at a path that others of its API
// have: it is older than that, Anthropic's Messages and OpenAI's Responses say, or
// has its own dialect alone. Of a model that it lacks it would have more to say.
func lacks(resp *http.Response) bool {
	if resp.StatusCode != http.StatusNotFound {
		return false
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, endpoint.MaxError))
	resp.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(body), resp.Body}
	message := dialect.OpenAIMessage(body)
	return message == "" || strings.EqualFold(message, http.StatusText(http.StatusNotFound))
}

// instead runs a job in other words than its client's, for which the server lacks
// the path.
func (s *Server) instead(ctx context.Context, j job.Job, to *endpoint.Handing) error {
	r, ok, err := dialect.ToChat(j, j.Model, dialect.Server{})
	switch {
	case err != nil:
		return err
	case ok:
		return s.translate(ctx, j, &r, to)
	}
	if r, err = dialect.ToOllama(j.Original.Path, j.Original.Body, j.Model); err != nil {
		return err
	}
	return s.inOwn(ctx, j, &r, to)
}

// translate runs a job of Anthropic's Messages or of OpenAI's Responses as one of
// OpenAI's chats.
func (s *Server) translate(ctx context.Context, j job.Job, r *dialect.Request, to *endpoint.Handing) error {
	sent := time.Now()
	resp, err := s.Post(ctx, "/v1"+r.Path, r.Body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if lacks(resp) {
		return job.Errorf(job.Unsupported, "it has nothing like %s, and no chats of OpenAI's", j.Original.Path)
	}
	defer s.keeping(ctx, j, resp)()
	a := events.Translating{Handing: to, Shape: r.Shape, Original: j.Original, Sent: sent}
	return a.Answer(resp, r.Warning())
}

// inOwn runs a job of OpenAI's dialect in Ollama's own.
func (s *Server) inOwn(ctx context.Context, j job.Job, r *dialect.Request, to *endpoint.Handing) error {
	body := r.Body
	var err error
	if j.KeepAlive != nil {
		if body, err = job.SetKeepAlive(body, *j.KeepAlive); err != nil {
			return err
		}
	}
	sent := time.Now()
	resp, err := s.Post(ctx, r.Path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	to.Head = job.Head{Status: http.StatusOK, ContentType: events.ContentType(r.Shape), Length: -1, Warning: r.Warning()}
	if resp.StatusCode >= http.StatusBadRequest {
		return (&events.Translating{Handing: to, Original: j.Original}).Answer(resp, "")
	}
	if r.Shape.Stream {
		a := answer{job: j, Handing: *to}
		a.Emit = inEvents(dialect.NewChunks(r.Shape, "chatcmpl-"+j.ID, sent), to.Emit)
		if err := a.readLines(resp.Body); err != nil {
			return err
		}
		endpoint.ReadOut(resp.Body)
		return nil
	}
	whole, err := io.ReadAll(io.LimitReader(resp.Body, endpoint.MaxBody+1))
	switch {
	case err != nil:
		return err
	case len(whole) > endpoint.MaxBody:
		return job.Errorf(job.BackendFailed, "its answer is longer than %d bytes", endpoint.MaxBody)
	}
	c := job.Chunk{Last: true, Usage: counted(whole)}
	if r.Shape.Kind == job.Embed {
		c.Raw, err = dialect.VectorList(whole, r.Shape)
	} else {
		c.Raw, err = dialect.WholeChunk(whole, r.Shape, "chatcmpl-"+j.ID, sent)
	}
	if err != nil {
		return err
	}
	to.Head.Length = int64(len(c.Raw))
	return to.Pass(c)
}

// inEvents hands lines on as the events that say the same.
func inEvents(chunks *dialect.Chunks, emit func(job.Chunk) error) func(job.Chunk) error {
	return func(c job.Chunk) error {
		var out []byte
		for line := range bytes.Lines(c.Raw) {
			said, _, err := chunks.Line(line)
			if err != nil {
				return err
			}
			out = append(out, said...)
		}
		c.Raw = out
		return emit(c)
	}
}
