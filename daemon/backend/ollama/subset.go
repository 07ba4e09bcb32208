package ollama

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// FastFlowLM is a server with a part of this API. It has no /api/embed, keeps
// its model until it is asked for another, and runs on AMD's NPUs alone.
const FastFlowLM = "fastflowlm"

// NewFastFlowLM returns a server that is said to be one.
func NewFastFlowLM(u *url.URL) *Server {
	s := New(u)
	s.subset.Store(true)
	return s
}

// Learn finds out whether the server has a part of the API only. It is for who
// does not know: others are asked for nothing that Ollama has not.
func (s *Server) Learn(ctx context.Context) error {
	var busy json.RawMessage
	_, err := s.Get(ctx, "/api/npu/status", &busy)
	var other *endpoint.StatusError
	if err != nil && !errors.As(err, &other) {
		return err
	}
	s.subset.Store(err == nil)
	return nil
}

// qualify changes facts to what they are of a server with a part of the API. Its
// models have the names of Ollama's, and other weights.
func (s *Server) qualify(facts *job.Facts) {
	facts.Server = FastFlowLM + " " + facts.Version
	facts.Device, facts.Lacks = power.NPU, []string{"keep_alive", "pull", "unload"}
	for i := range facts.Models {
		m := &facts.Models[i]
		m.Digest, m.Assumed, m.VRAM = s.own(*m), true, -1
	}
}

// own returns a digest that is like no other server's.
func (s *Server) own(m job.Model) string {
	sum := sha256.Sum256([]byte(s.address + "\x00" + m.Name + "\x00" + m.Digest))
	return hex.EncodeToString(sum[:])
}

// embed asks in OpenAI's dialect for the vectors that this server has no Ollama
// path for.
func (s *Server) embed(ctx context.Context, j job.Job, to *endpoint.Handing) error {
	var r dialect.Request
	var err error
	if j.Original != nil {
		r, err = dialect.ToOpenAI(j.Kind, j.Original.Path, j.Original.Body, j.Model, dialect.Server{})
	} else {
		r, err = dialect.ContentToOpenAI(j, j.Model, dialect.Server{})
	}
	if err != nil {
		return err
	}
	sent := time.Now()
	resp, err := s.Post(ctx, "/v1"+r.Path, r.Body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, endpoint.MaxBody))
	if err != nil {
		return err
	}
	if code := endpoint.CodeOf(resp.StatusCode); code != "" {
		return &job.Error{Code: code, Detail: fmt.Sprintf("%s: %s", resp.Status, dialect.OpenAIMessage(body))}
	}
	c := job.Chunk{Last: true}
	if c.Raw, c.Vectors, c.Usage, err = dialect.Vectors(body, r.Shape, sent, time.Now()); err != nil {
		return err
	}
	to.Head = job.Head{Status: http.StatusOK, ContentType: "application/json; charset=utf-8", Length: int64(len(c.Raw)), Warning: r.Warning()}
	return to.Pass(c)
}
