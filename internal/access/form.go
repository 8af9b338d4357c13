package access

// Form is a form as it was posted, which a login came in between.
type Form struct {
	// ContentType and Body are the visitor's own, byte by byte.
	ContentType string `json:"type"`
	Body        []byte `json:"body"`
	// Again is the id of a form that is kept already, in place of the two.
	Again string `json:"-"`
}

// FormAgainField is the only field of the form that the page "Send it again?"
// posts. Its value names the kept form.
const FormAgainField = "doorward_send_again"
