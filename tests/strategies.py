"""What hypothesis draws from in several tests."""

from hypothesis import strategies as st

#: The switches of a sandbox on which the contract is silent, any combination of them.
SWITCHES = st.fixed_dictionaries(
    {
        "order": st.sampled_from(["UpdatedUtc", "CreatedUtc"]),
        "interval": st.sampled_from(["half-open", "inclusive"]),
        "touched_cursor": st.sampled_from(["key", "restart", "empty", "refused"]),
        "stored_precision": st.sampled_from(["us", "s"]),
    }
)
