#!lua
-- PURPOSE    find out whether this server takes changes: a script that may write is refused before its first line by one
--            that is full, read only, without its replicas or without its disk, where PING is answered
-- KEYS       none: it is for this server, whichever slots it holds
-- ARGV       none
-- RETURNS    1
-- WHY ATOMIC it is one look

return 1
