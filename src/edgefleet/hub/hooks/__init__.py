"""Web hooks: who gets which events, the delivery of one event, and what could not be delivered."""
